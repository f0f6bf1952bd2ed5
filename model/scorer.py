"""Loads a model and scores texts with it: the `Scorer` and the `ModelInfo` of its results."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from model.errors import OutOfMemory
from model.evabyte.configuration import EvaByteConfig
from model.evabyte.modeling import EvaByteForCausalLM
from model.machine.device import on_device, translated_memory_errors
from model.machine.gpu_use import GpuReading, gpu_reader
from model.machine.pass_memory import (
    MIN_PASS_BYTES,
    Peak,
    carried_of,
    pass_bytes_that_fit,
)
from model.scoring.forward import Reader
from model.scoring.in_flight import InFlight
from model.scoring.next_chars import next_characters
from model.scoring.passes import Scoring, tell_nobody
from model.scoring.plan import Plan, Result, Slice, SliceScores
from model.scoring.request import ScoreRequest
from model.scoring.results import make_lists
from model.weights.checkpoint import find_checkpoint, revision_of
from model.weights.fingerprint import fingerprint_of
from model.weights.loading import DTYPES, Setup, load_weights, named_memory_errors
from model.weights.quantization import Quantization

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts about a model that readers of its scores need."""

    name: str
    fingerprint: str  # equal for two models whose scores differ by rounding alone
    revision: str  # a digest of the weights
    num_parameters: int
    dtype: str
    device: str
    quantization: str
    backend: str
    max_text_bytes: int
    window_size: int
    chunk_size: int
    is_demo: bool
    advice: str | None = None  # where the mode saves memory but no time on this machine

    @classmethod
    def of(
        cls, name: str, revision: str, config: EvaByteConfig, setup: Setup, num_parameters: int
    ) -> "ModelInfo":
        """Describe a model that was loaded as `setup` says."""
        return cls(
            name=name,
            fingerprint=fingerprint_of(
                revision, config, dtype=setup.dtype, quantization=setup.quantization.mode
            ),
            revision=revision,
            num_parameters=num_parameters,
            dtype=setup.dtype,
            device=str(setup.device),
            quantization=setup.quantization.mode,
            backend=setup.backend,
            max_text_bytes=config.max_position_embeddings - 1,
            window_size=config.window_size,
            chunk_size=config.chunk_size,
            is_demo=config.is_demo,
            advice=setup.advice(),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return dataclasses.asdict(self)


class Scorer:
    """An EvaByte model that scores texts in passes of limited size."""

    def __init__(
        self,
        model: EvaByteForCausalLM,
        info: ModelInfo,
        *,
        folder: Path,
        pass_bytes: int,
        is_reproducible: bool = False,
    ) -> None:
        """Use a model that was loaded from the checkpoint in `folder`; see `Scorer.load`."""
        self.info = info
        self.folder = folder
        self._model = model
        self._pass_bytes = pass_bytes
        self._is_reproducible = is_reproducible

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        name: str | None = None,
        hub_revision: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
        kernels: str = "auto",
        quantization: str = "none",
        cache_dir: Path | None = None,
        pass_bytes: int | None = None,
        is_reproducible: bool = False,
        on_phase: Callable[[str], None] = lambda phase: None,
    ) -> "Scorer":
        """Load the checkpoint in a folder, or the one named `owner/name` on the Hub.

        Args:
            name: what results call the model; by default the name of the folder or on the Hub.
            hub_revision: commit, tag or branch on the Hub; None is the commit that was loaded
                first.
            dtype: float32, bfloat16 or auto (float32 on a CPU, else bfloat16). A CPU that is slow
                with bfloat16 keeps such weights and computes in float32.
            kernels: one of `ops.backend.KERNELS`; auto takes triton where it is fast, else torch.
            quantization: one of `quantization.QUANTIZATIONS`.
            cache_dir: keeps quantized weights for the next load.
            pass_bytes: upper bound of the bytes that one pass reads; a longer text goes alone.
            is_reproducible: continuations share no pass, so that on a CPU no bit of their scores
                depends on other texts. With Triton's kernels products have one tile for any number
                of rows, for the same reason.
            on_phase: called when a phase begins, for some more than once: download, checksum,
                import, quantize, load.

        Raises:
            CheckpointInvalid: with one line that says why and what to do.
            DeviceUnavailable: there is no such device here, or no such kernels for it.
            OutOfMemory: the weights do not fit into the memory of the device.
            QuantizationUnavailable: there is no such mode, the device has no products for it, or
                bitsandbytes is not installed.
        """
        setup = Setup.choose(
            device,
            dtype,
            kernels,
            Quantization(quantization, cache_dir),
            is_reproducible=is_reproducible,
        )
        on_phase("download")
        found = find_checkpoint(checkpoint, hub_revision)
        on_phase("checksum")
        revision = revision_of(found.weight_files)
        with named_memory_errors(checkpoint, setup.device):
            model = load_weights(found, setup, revision=revision, on_phase=on_phase)
        own_name = found.folder.resolve().name if Path(checkpoint).is_dir() else checkpoint
        info = ModelInfo.of(name or own_name, revision, found.config, setup, model.num_parameters())
        return cls(
            model,
            info,
            folder=found.folder,
            pass_bytes=pass_bytes or setup.default_pass_bytes,
            is_reproducible=is_reproducible,
        )

    @property
    def pass_bytes(self) -> int:
        """The most bytes that one pass reads: fewer than requested where memory ran out."""
        return self._pass_bytes

    def watch_compilation(self, tell: Callable[[float], None]) -> None:
        """Call `tell` with the compile time in seconds of every kernel compiled from now on.

        Kernels in Triton's cache are not compiled. The torch backend compiles nothing.
        """
        if self.info.backend == "triton":
            from model.ops.compilation import watch_compilation

            watch_compilation(tell)

    def warm_up(self) -> None:
        """Score a text as long as a pass (warm-up), so that the first real text is not slow.

        On a GPU, this first chooses the length of a pass from the measured memory of two short
        passes, and compiles the kernels for other shapes and outputs.
        """
        if self._model.device.type == "cuda":
            self._fit_passes_into_device()
        if self.info.backend == "triton":
            self._compile_rare_forms()
        self._score_zeros(self._pass_bytes)

    def _compile_rare_forms(self) -> None:
        """Compile the kernels that a pass of several windows does not launch."""
        # `tiles.py` of a product has other tiles for few rows; each kind of output has its kernels.
        self._score_zeros(16, outputs=frozenset({"bytes"}))
        self._score_zeros(64, outputs=frozenset({"top_k"}), top_k=1)
        self._score_zeros(MIN_PASS_BYTES)
        # Summaries, even where a pass is shorter than a window. Without the memory for it, skip it.
        num_bytes = self.info.window_size + 1
        with contextlib.suppress(OutOfMemory):
            self._score_zeros(num_bytes, outputs=frozenset({"bytes", "top_k"}), top_k=1)

    def _fit_passes_into_device(self) -> None:
        small, large = map(self._measure_pass, (MIN_PASS_BYTES, 4 * MIN_PASS_BYTES))
        device = self._model.device
        # The next pass may use memory that the allocator holds and does not use.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        self._pass_bytes = pass_bytes_that_fit(
            small,
            large,
            free_bytes=torch.cuda.mem_get_info(device)[0] + unused,
            carried=carried_of(
                self._model.config,
                self.info.max_text_bytes,
                bytes_per_value=DTYPES[self.info.dtype].itemsize,
            ),
            wanted_bytes=self._pass_bytes,
        )

    def _measure_pass(self, num_bytes: int) -> Peak:
        device = self._model.device
        self._score_zeros(num_bytes)  # compiles and allocates what later passes reuse
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        self._score_zeros(num_bytes)
        return Peak(num_bytes, torch.cuda.max_memory_allocated(device) - before)

    def _score_zeros(
        self, num_bytes: int, *, outputs: frozenset[str] = frozenset(), top_k: int = 0
    ) -> None:
        text = bytes(min(num_bytes, self.info.max_text_bytes))
        self.score([ScoreRequest(text=text, outputs=outputs, top_k=top_k)])

    def gpu_reader(self) -> Callable[[], GpuReading | None]:
        """Return a function that reads the use of the model's GPU; it gives None on a CPU."""
        return gpu_reader(self._model.device)

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        on_pass: Callable[[int], None] | None = None,
        for_json: bool = False,
    ) -> list[Result]:
        """Return one JSON-ready result per request, in order.

        With `for_json`, lists of numbers are `LazyList`s as in `Plan.join`: less work for callers
        that encode results by `result_json.dump_result`.

        `results.to_results` describes the result of a text. That of continuations is
        `{"continuations": [...]}` with one such object each. `next_chars.next_characters` describes
        `next_chars`. `on_pass` is called after each pass with the number of bytes that it read.

        Raises:
            ClientError: a text exceeds the model's limits; nothing was scored.
            OutOfMemory: a pass did not fit; ask for fewer bytes at a time.
            ScoringFailed: a score is not finite.
        """
        plans = [Plan.of(request) for request in requests]
        slices = [each_slice for plan in plans for each_slice in plan.slices]
        scores = self.score_slices(slices, on_pass=on_pass)
        results = [plan.join([each]) for plan, each in zip(plans, scores, strict=True)]
        if not for_json:
            make_lists(results)
        return results

    def score_slices(
        self,
        slices: Sequence[Slice],
        *,
        on_pass: Callable[[int], None] | None = None,
    ) -> list[SliceScores]:
        """Return the scores of slices of any plans, in order; `Plan.join` makes results of them.

        `on_pass` and the errors are those of `score`. A score that is not finite fails its own
        slice, not the join.
        """
        for each_slice in slices:
            each_slice.request.check_limits(self.info.max_text_bytes, self.info.window_size)
        return self._in_passes_that_fit(
            lambda reader: Scoring(
                reader, on_pass or tell_nobody, InFlight.on(self._model.device)
            ).score(slices)
        )

    def predict_characters(
        self,
        texts: Sequence[bytes],
        num_characters: int,
        *,
        on_pass: Callable[[int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Return `next_chars.next_characters` of each text, without a score.

        Raises:
            ClientError: a text exceeds the model's limits; nothing was read.
            OutOfMemory: a pass did not fit; ask for fewer bytes at a time.
            ScoringFailed: a probability is not finite.
        """
        for text in texts:
            request = ScoreRequest(text=text, next_chars=num_characters)
            request.check_limits(self.info.max_text_bytes, self.info.window_size)
        numbers = [num_characters] * len(texts)
        return self._in_passes_that_fit(
            lambda reader: next_characters(reader, texts, numbers, on_pass=on_pass or tell_nobody)
        )

    def _in_passes_that_fit(self, compute: Callable[[Reader], list[Found]]) -> list[Found]:
        """Return the result of `compute`; where memory runs out, retry with passes of half size.

        The smaller size stays: memory that ran out once would run out again. If even the shortest
        passes do not fit, the passes were not the reason and keep their size.
        """
        pass_bytes, device = self._pass_bytes, self._model.device
        while True:
            with (
                contextlib.suppress(OutOfMemory),
                translated_memory_errors(),
                on_device(device),
            ):
                results = compute(Reader(self._model, pass_bytes, self._is_reproducible))
                self._pass_bytes = pass_bytes
                return results
            # The error and its frames are gone here, and so is the memory of the failed pass.
            if pass_bytes <= MIN_PASS_BYTES:
                raise OutOfMemory(
                    f"passes of {pass_bytes:,} bytes, or of one text of up to "
                    f"{self.info.window_size:,}, did not fit into memory; score shorter texts"
                )
            pass_bytes = max(pass_bytes // 2, MIN_PASS_BYTES)
            if device.type == "cuda":
                torch.cuda.empty_cache()
