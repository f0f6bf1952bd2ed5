"""The face of `model`: texts in, JSON-ready scores out."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import find_checkpoint, load_model, revision_of
from model.cpu import keep_freed_memory, return_freed_memory, use_onednn_for_float32
from model.errors import DeviceUnavailable, OutOfMemory
from model.evabyte import EvaByteForCausalLM
from model.log_likelihood import ByteScores, score_bytes
from model.ops.backend import choose_backend
from model.quantization import Quantization, load_quantized_model
from model.request import ScoreRequest
from model.results import ScoredText, to_results
from model.vocabulary import BOS_ID, NUM_SPECIAL_IDS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a reader of scores wants to know of the model that gave them."""

    name: str
    revision: str  # stands for the weights
    num_parameters: int
    dtype: str
    device: str
    quantization: str
    backend: str
    max_text_bytes: int
    window_size: int
    chunk_size: int
    is_demo: bool

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Bytes as the model reads them: those `given` get no score, those of `scored.text` do."""

    given: bytes
    scored: ScoredText

    @property
    def num_bytes(self) -> int:
        return len(self.given) + len(self.scored.text)


class Scorer:
    """An EvaByte model that scores texts, packed into passes of bounded size."""

    def __init__(self, model: EvaByteForCausalLM, info: ModelInfo, *, pass_bytes: int) -> None:
        """Take over a model in memory; `Scorer.load` reads one from a checkpoint."""
        self.info = info
        self._model = model
        self._pass_bytes = pass_bytes

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        kernels: str = "auto",
        quantization: str = "none",
        cache_dir: Path | None = None,
        pass_bytes: int | None = None,
    ) -> "Scorer":
        """Load the checkpoint in a folder, or of the name `owner/name` on the Hub.

        `dtype` is float32, bfloat16 or auto: float32 on a CPU, else bfloat16. `kernels` is one of
        `ops.backend.KERNELS`: auto is triton where it has fast code for the device, else torch.
        `quantization` is one of `quantization.QUANTIZATIONS`; quantized weights are kept in
        `cache_dir`, if given, for the next load. `pass_bytes` limits the bytes that one pass
        reads; a longer text goes alone.

        Raises:
            CheckpointInvalid: with one line that says why and what to do.
            DeviceUnavailable: there is no such device here, or no such kernels for it.
            QuantizationUnavailable: there is no such mode, or bitsandbytes is not installed.
        """
        target = _find_device(device)
        backend = choose_backend(kernels, target)
        is_cpu = target.type == "cpu"
        if dtype == "auto":
            dtype = "float32" if is_cpu else "bfloat16"
        if pass_bytes is None:
            pass_bytes = 2048 if is_cpu else 8192
        found = find_checkpoint(checkpoint)
        if is_cpu and dtype == "float32":
            use_onednn_for_float32()
        return_freed_memory()
        revision = revision_of(found.weight_files)
        if quantization == "none":
            model = load_model(found, device=target, dtype=DTYPES[dtype])
        else:
            model = load_quantized_model(
                found,
                Quantization(quantization, cache_dir),
                revision=revision,
                device=target,
                dtype=DTYPES[dtype],
                backend=backend,
            )
        if is_cpu:
            keep_freed_memory()
        model.model.backend = backend
        info = ModelInfo(
            name=found.folder.resolve().name if Path(checkpoint).is_dir() else checkpoint,
            revision=revision,
            num_parameters=model.num_parameters(),
            dtype=dtype,
            device=str(target),
            quantization=quantization,
            backend=backend,
            max_text_bytes=found.config.max_position_embeddings - 1,
            window_size=found.config.window_size,
            chunk_size=found.config.chunk_size,
            is_demo=found.config.is_demo,
        )
        return cls(model, info, pass_bytes=pass_bytes)

    def warm_up(self) -> None:
        """Score a text as long as a pass, so that the first real one finds everything in place."""
        num_bytes = min(self._pass_bytes, self.info.max_text_bytes)
        self.score([ScoreRequest(text=bytes(num_bytes))])

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        on_pass: Callable[[int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Return one JSON-ready result per request, in order.

        That of a text is described in `results.to_results`; that of continuations is
        `{"continuations": [...]}` with such an object for each. `on_pass` is called after each
        pass with the number of bytes that it read.

        Raises:
            RequestInvalid: a text is longer than `info.max_text_bytes`; nothing was scored.
            OutOfMemory: a pass did not fit; ask for fewer bytes at a time.
            ScoringFailed: a score is not finite.
        """
        for request in requests:
            request.check_size(self.info.max_text_bytes)
        sequences = _sequences_of(requests)
        results: list[dict[str, Any]] = [{} for _ in sequences]
        for numbers in _cut_into_passes(sequences, self._pass_bytes):
            batch = [sequences[number] for number in numbers]
            with _translated_memory_errors():
                scores = self._score_pass(batch)
            batch_results = to_results([sequence.scored for sequence in batch], scores)
            for number, result in zip(numbers, batch_results, strict=True):
                results[number] = result
            if on_pass is not None:
                on_pass(sum(sequence.num_bytes for sequence in batch))
        return _by_request(requests, results)

    @torch.inference_mode()
    def _score_pass(self, batch: Sequence[_Sequence]) -> ByteScores:
        """Score all `batch` in one packed row of tokens; the result holds the scored bytes only."""
        lengths = [sequence.num_bytes for sequence in batch]
        row = b"".join(part for each in batch for part in (each.given, each.scored.text))
        targets = np.frombuffer(row, dtype=np.uint8).astype(np.int64) + NUM_SPECIAL_IDS
        # Each token predicts the next one, so that the last byte of a text is no input.
        input_ids = np.roll(targets, 1)
        input_ids[np.cumsum(lengths) - lengths] = BOS_ID

        model = self._model
        hidden = model.model(torch.from_numpy(input_ids).to(model.device), model.lay_out(lengths))
        target_ids = torch.from_numpy(targets).to(model.device)
        if any(sequence.given for sequence in batch):
            is_scored = torch.from_numpy(_is_scored(batch)).to(model.device)
            hidden, target_ids = hidden[is_scored], target_ids[is_scored]
        return score_bytes(
            hidden,
            model.next_id_weight,
            target_ids,
            with_moments=any(s.scored.outputs & {"bytes", "curvature"} for s in batch),
            top_k=max(sequence.scored.top_k for sequence in batch),
            backend=model.model.backend,
        )


def _find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"device {name}: unknown; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(f"device {name}: PyTorch finds no usable GPU; use cpu")
    return device


def _sequences_of(requests: Sequence[ScoreRequest]) -> list[_Sequence]:
    return [
        _Sequence(given, ScoredText(scored, request.outputs, request.top_k))
        for request in requests
        for given, scored in request.sequences
    ]


def _cut_into_passes(sequences: Sequence[_Sequence], pass_bytes: int) -> Iterator[list[int]]:
    """Yield the numbers of the sequences of each pass.

    Longest first: neighbours of like length share products, and what does not fit into memory
    fails before anything else was computed.
    """
    lengths = [sequence.num_bytes for sequence in sequences]
    batch: list[int] = []
    num_bytes = 0
    for number in sorted(range(len(sequences)), key=lengths.__getitem__, reverse=True):
        if batch and num_bytes + lengths[number] > pass_bytes:
            yield batch
            batch, num_bytes = [], 0
        batch.append(number)
        num_bytes += lengths[number]
    if batch:
        yield batch


def _is_scored(batch: Sequence[_Sequence]) -> np.ndarray:
    """Which bytes of the packed row get a score: [T] bool."""
    spans = [length for each in batch for length in (len(each.given), len(each.scored.text))]
    return np.repeat(np.tile([False, True], len(batch)), spans)


def _by_request(
    requests: Sequence[ScoreRequest], results: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Put the results of a request's continuations together."""
    remaining = iter(results)
    return [
        {"continuations": [next(remaining) for _ in request.continuations]}
        if request.continuations
        else next(remaining)
        for request in requests
    ]


@contextlib.contextmanager
def _translated_memory_errors() -> Iterator[None]:
    """Turn every form of "out of memory" into `OutOfMemory`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(
            "the pass did not fit into memory; score fewer bytes at a time"
        ) from error
    except RuntimeError as error:
        # The CPU allocator has no exception type of its own.
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise OutOfMemory(
            "the pass did not fit into memory; score fewer bytes at a time"
        ) from error
