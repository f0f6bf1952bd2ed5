import json

import pytest
import torch
from transformers import AutoConfig

from model import EvaByteConfig, EvaByteForCausalLM

PUBLISHED = {  # the 6.5B checkpoint's config.json, as far as it decides anything
    "auto_map": {
        "AutoConfig": "configuration_evabyte.EvaByteConfig",
        "AutoModelForCausalLM": "modeling_evabyte.EvaByteForCausalLM",
    },
    "architectures": ["EvaByteForCausalLM"],
    "attention_bias": False,
    "attention_class": "eva",
    "bos_token_id": 1,
    "chunk_size": 16,
    "eos_token_id": 11,
    "fp32_ln": False,
    "fp32_logits": True,
    "fp32_skip_add": True,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "init_fn": "v2",
    "initializer_range": 0.01275,
    "intermediate_size": 11008,
    "max_position_embeddings": 32768,
    "max_seq_length": 32768,
    "mixedp_attn": True,
    "model_type": "evabyte",
    "norm_add_unit_offset": True,
    "num_attention_heads": 32,
    "num_chunks": None,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "num_pred_heads": 8,
    "pad_token_id": 0,
    "return_dict": False,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 320,
    "window_size": 2048,
}


@pytest.fixture
def published_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    return tmp_path


def test_published_configuration_needs_no_remote_code(published_folder):
    config = AutoConfig.from_pretrained(published_folder)

    assert isinstance(config, EvaByteConfig)
    assert config.rope_theta == 100_000
    assert config.window_size // config.chunk_size == 128


def test_published_configuration_describes_the_published_tensors(published_folder):
    config = AutoConfig.from_pretrained(published_folder)
    with torch.device("meta"):
        model = EvaByteForCausalLM(config)

    tensors = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert model.num_parameters() == 6_488_330_240
    assert len(tensors) == 355
    layer = "model.layers.31"
    published = {
        "model.embed_tokens.weight": (320, 4096),
        f"{layer}.input_layernorm.weight": (4096,),
        f"{layer}.self_attn.q_proj.weight": (4096, 4096),
        f"{layer}.self_attn.k_proj.weight": (4096, 4096),
        f"{layer}.self_attn.v_proj.weight": (4096, 4096),
        f"{layer}.self_attn.o_proj.weight": (4096, 4096),
        f"{layer}.self_attn.adaptive_phi": (1, 32, 1, 1, 128),
        f"{layer}.self_attn.adaptive_mu_k": (1, 32, 1, 1, 128),
        f"{layer}.post_attention_layernorm.weight": (4096,),
        f"{layer}.mlp.gate_proj.weight": (11008, 4096),
        f"{layer}.mlp.up_proj.weight": (11008, 4096),
        f"{layer}.mlp.down_proj.weight": (4096, 11008),
        "model.norm.weight": (4096,),
        "lm_head.weight": (2560, 4096),
    }
    assert published.items() <= tensors.items()


def test_saved_configuration_loads_as_it_was(tmp_path, tiny_config):
    tiny_config.save_pretrained(tmp_path)

    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == tiny_config.to_diff_dict()
    assert json.loads((tmp_path / "config.json").read_text())["rope_theta"] == 100_000


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"vocab_size": 65536}, "vocab_size is 65536"),
        ({"hidden_size": 100, "num_attention_heads": 3}, "hidden_size is 100"),
        ({"hidden_size": 96, "num_attention_heads": 32}, "an even number"),
        ({"chunk_size": 24, "window_size": 2048}, "chunk_size is 24; it must divide"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"num_key_value_heads": 8}, "num_key_value_heads is 8"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"max_position_embeddings": 1}, "max_position_embeddings"),
        ({"window_size": "wide"}, "window_size"),
    ],
    ids=str,
)
def test_impossible_configuration_is_refused_by_name(change, complaint):
    with pytest.raises(Exception, match=complaint):
        EvaByteConfig(**PUBLISHED | change)


def test_missing_number_of_heads_means_one(tiny_config):
    fields = tiny_config.to_dict()
    del fields["num_pred_heads"]
    with torch.device("meta"):
        model = EvaByteForCausalLM(EvaByteConfig.from_dict(fields))

    assert model.lm_head.weight.shape == (320, tiny_config.hidden_size)
