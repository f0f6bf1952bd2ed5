"""Finds, checks and loads EvaByte checkpoints in the published layout."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from model.errors import CheckpointInvalid
from model.evabyte.configuration import EvaByteConfig
from model.evabyte.modeling import EvaByteForCausalLM
from model.weights.hub import (
    NAME,
    WEIGHTS,
    check_downloads,
    expected_sha256,
    fetch_files,
    sha256_of,
)

DEMO_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "demo"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CANARY_FILE = "canary.json"
# Published files have 2 levels. Later readers recurse once per level.
MAX_JSON_LEVELS = 32
SHARD = re.compile(r"\w[\w.-]*\.safetensors")
FLOAT_TYPES = {"F32", "F16", "BF16"}
# Keys that change scores and show in no tensor shape: a guess would give wrong scores.
REQUIRED_KEYS = (
    ("window_size",),
    ("chunk_size",),
    ("rms_norm_eps",),
    ("norm_add_unit_offset",),
    ("rope_theta", "rope_parameters"),
    ("max_position_embeddings",),
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are complete and have the shapes of EvaByte."""

    folder: Path
    config: EvaByteConfig
    weight_files: tuple[Path, ...]


def find_folder(name: str, hub_revision: str | None = None) -> Path:
    """Return the folder `name`, or the folder of the checkpoint `name` downloaded from the Hub.

    `hub_revision` is as in `hub.fetch_files`.

    Raises:
        CheckpointInvalid: there is no such folder, and the Hub has no such checkpoint; or a folder
            is named together with a revision.
    """
    if Path(name).is_dir():
        if hub_revision is not None:
            raise CheckpointInvalid(
                f"checkpoint {name}: is a folder, which has no revision {hub_revision}; leave out "
                "--revision, or unset EVASCORE_MODEL_REVISION, or name a checkpoint on the Hub"
            )
        return Path(name)
    if not NAME.fullmatch(name):
        raise CheckpointInvalid(
            f"checkpoint {name}: no such folder; give a folder, or a name on the Hub as owner/name"
        )
    return fetch_files(name, (CONFIG_FILE, INDEX_FILE, CANARY_FILE), hub_revision)


def find_checkpoint(name: str, hub_revision: str | None = None) -> Checkpoint:
    """Return the checkpoint in the folder `name`, or the one named `owner/name` on the Hub.

    Reads the configuration and the headers of the weights, but not the weights.

    Raises:
        CheckpointInvalid: one line names the wrong file or tensor and the remedy.
    """
    folder = find_folder(name, hub_revision)
    config = _read_config(folder / CONFIG_FILE)
    weight_files = _weight_files(folder)
    _check_tensors(weight_files, config)
    return Checkpoint(folder, config, weight_files)


def fetch_checkpoint(name: str, hub_revision: str | None = None) -> Checkpoint:
    """Return the checkpoint `name` after comparing every checksum that the Hub gives.

    Fetches it as `find_checkpoint` does. A worker that loads it later downloads nothing.

    Raises:
        CheckpointInvalid: as `find_checkpoint`, or a file is damaged.
    """
    folder = find_folder(name, hub_revision)
    # Before anything reads the files: the checksum says most about a damaged one.
    check_downloads(tuple(sorted(folder.glob(WEIGHTS))))
    return find_checkpoint(str(folder))


def load_model(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantization: BitsAndBytesConfig | None = None,
) -> EvaByteForCausalLM:
    """Return the model of `checkpoint` on `device`, ready to score.

    `quantization` says how to quantize the weights; quantized checkpoints describe it themselves.
    """
    with without_progress_bars():
        model = EvaByteForCausalLM.from_pretrained(
            checkpoint.folder,
            config=checkpoint.config,
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            local_files_only=True,
            quantization_config=quantization,
        )
    return model.eval()


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars on stderr."""
    had_progress_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_progress_bar:
            transformers_logging.enable_progress_bar()


def revision_of(weight_files: tuple[Path, ...]) -> str:
    """Return a digest of the weights: 16 hexadecimal digits of the SHA-256 of their files.

    Files in the Hub's cache are named by their SHA-256 and are not read here;
    `hub.check_downloads` reads them.
    """
    digests = [expected_sha256(path) or sha256_of(path) for path in weight_files]
    whole = (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
    return whole[:16]


def _read_config(path: Path) -> EvaByteConfig:
    fields = _read_json(path)
    if fields.get("model_type") != EvaByteConfig.model_type:
        raise CheckpointInvalid(
            f"{path}: model_type is {fields.get('model_type')!r}, not 'evabyte'; "
            "only EvaByte checkpoints are supported"
        )
    if fields.get("quantization_config") is not None:
        raise CheckpointInvalid(
            f"{path}: quantization_config is set; name the checkpoint that is not quantized "
            "and choose quantization int8 or nf4"
        )
    for names in REQUIRED_KEYS:
        if all(fields.get(name) is None for name in names):
            raise CheckpointInvalid(
                f"{path}: {' or '.join(names)} is missing; copy the published {CONFIG_FILE}"
            )
    try:
        return EvaByteConfig.from_dict(fields)
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[-1]
        raise CheckpointInvalid(f"{path}: {reason}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointInvalid(
            f"{path}: not found; name the folder that holds {CONFIG_FILE} and the weights"
        ) from error
    # Python's reader ends at a few thousand levels of nesting.
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{path}: is not readable JSON; copy it again") from error
    if not isinstance(fields, dict):
        raise CheckpointInvalid(f"{path}: is not a JSON object; copy it again")
    if _is_deeper_than(MAX_JSON_LEVELS, fields):
        raise CheckpointInvalid(
            f"{path}: is nested in more than {MAX_JSON_LEVELS} levels; copy it again"
        )
    return fields


def _is_deeper_than(max_levels: int, value: Any) -> bool:
    level = [value]
    for _ in range(max_levels):
        containers = [each for each in level if isinstance(each, (dict, list))]
        level = [
            child
            for each in containers
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, (dict, list)) for each in level)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of the weights: a single file, or the files that the index lists."""
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    if not (folder / INDEX_FILE).is_file():
        raise CheckpointInvalid(
            f"{folder}: has neither {WEIGHTS_FILE} nor {INDEX_FILE}; convert weights in other "
            "formats to safetensors"
        )
    weight_map = _read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointInvalid(f"{folder / INDEX_FILE}: has no weight_map; copy it again")
    for name in weight_map.values():
        # A path would lead to any file of this machine.
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise CheckpointInvalid(
                f"{folder / INDEX_FILE}: weight_map names {str(name)[:60]!r}; it may only name "
                ".safetensors files in the same folder"
            )
    paths = tuple(folder / name for name in sorted(set(weight_map.values())))
    for path in paths:
        if not path.is_file():
            raise CheckpointInvalid(f"{path}: not found, but {INDEX_FILE} lists it; copy it too")
    return paths


def _check_tensors(weight_files: tuple[Path, ...], config: EvaByteConfig) -> None:
    """Compare names, shapes and types of all tensors with the configuration."""
    with torch.device("meta"):
        wanted = {
            name: tuple(tensor.shape)
            for name, tensor in EvaByteForCausalLM(config).state_dict().items()
        }
    found: set[str] = set()
    for path in weight_files:
        for name, (shape, dtype) in _read_header(path).items():
            if name not in wanted:
                raise CheckpointInvalid(
                    f"{path}: tensor {name} does not belong to the model in {CONFIG_FILE}; "
                    "both must come from the same checkpoint"
                )
            if shape != wanted[name]:
                raise CheckpointInvalid(
                    f"{path}: tensor {name} has shape {shape}, but {CONFIG_FILE} implies "
                    f"{wanted[name]}; both must come from the same checkpoint"
                )
            if dtype not in FLOAT_TYPES:
                raise CheckpointInvalid(
                    f"{path}: tensor {name} has type {dtype}; convert it to one of "
                    f"{sorted(FLOAT_TYPES)}"
                )
            found.add(name)
    missing = sorted(wanted.keys() - found)
    if missing:
        raise CheckpointInvalid(
            f"{weight_files[0].parent}: {len(missing)} of {len(wanted)} tensors are missing, such "
            f"as {missing[0]}; copy all files of the checkpoint"
        )


def _read_header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and type of each tensor in the safetensors file `path`."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointInvalid(
            f"{path}: truncated, or not a safetensors file ({error}); copy it again"
        ) from error
