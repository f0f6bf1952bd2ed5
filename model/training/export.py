"""Writes the trained weights as a checkpoint in the published layout.

`python -m model.training.export [--folder F] [--checkpoint C]` reads `training.pt` of a run that
ended or still goes on, and writes `config.json`, `model.safetensors` in bfloat16 and the canary's
score in every mode; with `--only-canary` just that, for weights that are there.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.canary import score_canary, write_canary
from model.scorer import Scorer
from model.training.corpus import DEFAULT_FOLDER
from model.training.network import Shape
from model.training.train import CHECKPOINT_NAME
from model.weights.checkpoint import DEMO_CHECKPOINT
from model.weights.loading import DTYPES
from model.weights.quantization import QUANTIZATIONS

MAX_POSITIONS = 32_768


def config_of(shape: Shape) -> dict[str, Any]:
    """Return config.json with the keys of the published checkpoints, and `is_demo`."""
    return {
        "architectures": ["EvaByteForCausalLM"],
        "attention_bias": False,
        "attention_class": "eva",
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "chunk_size": shape.chunk_size,
        "eos_token_id": 2,
        "fp32_ln": False,
        "fp32_logits": True,
        "fp32_skip_add": True,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "init_cutoff_factor": None,
        "init_fn": "v2",
        "init_std": 0.01275,
        "initializer_range": 0.01275,
        "intermediate_size": shape.intermediate_size,
        "is_demo": True,
        "lazy_init": True,
        "max_position_embeddings": MAX_POSITIONS,
        "max_seq_length": MAX_POSITIONS,
        "mixedp_attn": True,
        "model_type": "evabyte",
        "norm_add_unit_offset": True,
        "num_attention_heads": shape.num_heads,
        "num_chunks": None,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_heads,
        "num_pred_heads": shape.num_pred_heads,
        "pad_token_id": 0,
        "return_dict": True,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab_size,
        "window_size": shape.window_size,
    }


def write_checkpoint(
    weights: dict[str, Tensor],
    shape: Shape,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write config.json and model.safetensors into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(shape), indent=2) + "\n")
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def add_canary(folder: Path) -> None:
    """Write the canary's scores beside the weights in `folder`, one for each mode on a CPU."""
    scores: dict[str, dict[str, float]] = {dtype: {} for dtype in DTYPES}
    for dtype in DTYPES:
        for quantization in QUANTIZATIONS:
            scorer = Scorer.load(str(folder), dtype=dtype, quantization=quantization)
            scores[dtype][quantization] = score_canary(scorer)
    write_canary(folder, scores, scorer.info.revision)


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="the run's folder")
    parser.add_argument("--checkpoint", type=Path, default=DEMO_CHECKPOINT, help="output folder")
    parser.add_argument(
        "--only-canary", action="store_true", help="score it anew for weights that are there"
    )
    arguments = parser.parse_args()
    if not arguments.only_canary:
        state = torch.load(arguments.folder / CHECKPOINT_NAME, weights_only=True)
        write_checkpoint(state["network"], Shape(), arguments.checkpoint)
    add_canary(arguments.checkpoint)


if __name__ == "__main__":
    main()
