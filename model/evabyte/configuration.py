"""Reads and checks the configuration of an EvaByte model, the published config.json."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from contract.grammar.vocabulary import VOCABULARY_SIZE

# Upper limits: at least twice those of the largest language models. A damaged or malicious file
# must not use minutes, or all memory, before the weights are checked.
MAX_COUNTS = {
    "hidden_size": 2**17,
    "intermediate_size": 2**19,
    "num_hidden_layers": 256,
    "num_attention_heads": 2048,
    "num_pred_heads": 256,
    "window_size": 2**24,
    "chunk_size": 2**24,
    "max_position_embeddings": 2**31,
}
# What the network computes follows from these keys and the weights; the other keys change no score.
SCORING_KEYS = (
    *MAX_COUNTS,
    *("vocab_size", "rms_norm_eps", "norm_add_unit_offset"),
    *("fp32_logits", "hidden_act", "attention_bias", "rope_theta", "tie_word_embeddings"),
)


@strict
class EvaByteConfig(PreTrainedConfig):
    """The keys of config.json that decide what the model computes; other keys are ignored.

    The defaults are those of the published 6.5B checkpoint. Some keys never change a result of the
    authors' code (`fp32_ln`, `fp32_skip_add`, `mixedp_attn`, `init_fn`...): they are not read.
    """

    model_type = "evabyte"

    vocab_size: int = VOCABULARY_SIZE
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    num_pred_heads: int = 1  # default of the authors' code
    window_size: int = 2048
    chunk_size: int = 16
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-5
    norm_add_unit_offset: bool = True
    fp32_logits: bool = True
    hidden_act: str = "silu"
    attention_bias: bool = False
    rope_theta: float | int = 100_000.0
    rope_parameters: dict[str, Any] | None = None
    initializer_range: float = 0.01275
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False
    is_demo: bool = False  # our key: a small model to try the service, not for real scores

    def __post_init__(self, **kwargs: Any) -> None:
        """Derive missing keys from the others."""
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)
        # transformers has put `rope_theta` and `rope_scaling` into one dictionary.
        assert self.rope_parameters is not None
        self.rope_theta = self.rope_parameters["rope_theta"]

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def validate_architecture(self) -> None:
        """Refuse configurations that this implementation cannot compute; transformers calls it.

        Raises:
            ValueError: a key has an impossible or unsupported value; the message names it.
        """
        for key, most in MAX_COUNTS.items():
            value = getattr(self, key)
            _require(value >= 1, f"{key} is {value}; it must be 1 or more")
            _require(value <= most, f"{key} is {value}; it must be {most} or less")
        _require(
            self.vocab_size == VOCABULARY_SIZE,
            f"vocab_size is {self.vocab_size}; EvaByte's vocabulary has {VOCABULARY_SIZE} ids",
        )
        _require(
            self.hidden_size % (2 * self.num_attention_heads) == 0,
            f"hidden_size is {self.hidden_size}; it must be num_attention_heads, "
            f"{self.num_attention_heads}, times an even number",
        )
        _require(
            self.window_size % self.chunk_size == 0,
            f"chunk_size is {self.chunk_size}; it must divide window_size, {self.window_size}",
        )
        _require(
            self.num_key_value_heads == self.num_attention_heads,
            f"num_key_value_heads is {self.num_key_value_heads}; it must equal "
            f"num_attention_heads, {self.num_attention_heads}",
        )
        _require(
            self.max_position_embeddings >= 2,
            f"max_position_embeddings is {self.max_position_embeddings}; it must be 2 or more",
        )
        _require(self.hidden_act == "silu", f"hidden_act is {self.hidden_act!r}; it must be silu")
        _require(not self.attention_bias, "attention_bias is set; EvaByte has no biases")
        _require(
            not self.tie_word_embeddings, "tie_word_embeddings is set; EvaByte does not tie them"
        )
        rope_type = (self.rope_parameters or {}).get("rope_type", "default")
        _require(rope_type == "default", "rope_scaling is set; it is not supported")


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ValueError(message)
