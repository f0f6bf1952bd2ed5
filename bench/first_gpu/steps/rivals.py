"""Compares packing and kernels with other ways to score, on the same weights."""

import torch
from torch import Tensor

from bench.first_gpu.modes import BITSANDBYTES_INT8, PLAIN, Modes
from bench.first_gpu.passes import FIRST_ID, NUM_IDS, Pass
from bench.first_gpu.project import cut_into_passes
from bench.first_gpu.run import Run
from bench.first_gpu.texts import mixed_lengths, texts_of
from bench.first_gpu.timing import wall_s
from model import EvaByteForCausalLM

NUM_PADDED_BATCHES = 2


def measure(run: Run) -> None:
    """Measure packed passes, texts one at a time, padded batches, and bitsandbytes' own int8."""
    lengths = mixed_lengths(run.sizes, run.sizes.num_texts)
    with torch.inference_mode():
        modes = Modes(run)
        ways = dict.fromkeys([(PLAIN, run.backend), ("int8", run.backend), (PLAIN, "torch")])
        for mode, backend in ways:
            with run.part(f"compare {mode} {backend}", needs_s=6):
                modes.use(mode, backend)
                if backend == run.backend:
                    _measure_packed(run, modes.model, mode, lengths)
                _measure_one_at_a_time(run, modes.model, f"{mode} {backend}", lengths)
                _measure_padded(run, modes.model, f"{mode} {backend}", lengths)
        for mode in BITSANDBYTES_INT8:
            with run.part(f"compare {mode}", needs_s=8):
                modes.use(mode)
                for budget in run.sizes.torch_budgets:
                    one = Pass(modes.model, texts_of(budget, run.sizes.text_bytes))
                    speed = round(budget / wall_s(run, one.run, repeats=2))
                    run.put(f"compare {mode}, packed", budget=budget, bytes_per_s=speed)
                modes.forget(mode)


def packed_passes(run: Run, model: EvaByteForCausalLM, lengths: list[int]) -> list[Pass]:
    """Return the passes that the scorer would make of texts of these lengths."""
    numbers_of_passes = cut_into_passes(lengths, run.sizes.pass_bytes)
    return [Pass(model, [lengths[number] for number in numbers]) for numbers in numbers_of_passes]


def _measure_packed(run: Run, model: EvaByteForCausalLM, mode: str, lengths: list[int]) -> None:
    passes = packed_passes(run, model, lengths)
    took_s = wall_s(run, lambda: [each.run() for each in passes], repeats=2)
    speed = round(sum(lengths) / took_s)
    run.put(f"compare {mode}: packed by the project", texts=len(lengths), bytes_per_s=speed)


def _measure_one_at_a_time(
    run: Run, model: EvaByteForCausalLM, way: str, lengths: list[int]
) -> None:
    passes = [Pass(model, [length]) for length in lengths[: run.sizes.num_alone]]
    took_s = wall_s(run, lambda: [each.run() for each in passes], repeats=1)
    speed = round(sum(each.num_bytes for each in passes) / took_s)
    run.put(f"compare {way}: one text at a time", texts=len(passes), bytes_per_s=speed)


def _measure_padded(run: Run, model: EvaByteForCausalLM, way: str, lengths: list[int]) -> None:
    """Measure batches padded on the right: logits of all positions, log-softmax, gather."""
    size = run.sizes.padded_texts
    batches = [lengths[first : first + size] for first in range(0, NUM_PADDED_BATCHES * size, size)]
    inputs = [_padded_input(run, batch, seed) for seed, batch in enumerate(batches)]

    def score() -> None:
        for ids, mask in inputs:
            logits = model(ids, attention_mask=mask).logits
            chosen = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
            (chosen * mask[:, 1:]).sum(1).cpu()

    num_bytes, num_read = sum(map(sum, batches)), sum(ids.numel() for ids, _ in inputs)
    run.put(
        f"compare {way}: padded batches of {size}",
        bytes_per_s=round(num_bytes / wall_s(run, score, repeats=2)),
        share_that_is_text=round(num_bytes / num_read, 3),
    )


def _padded_input(run: Run, lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask of a batch, both [B, T]."""
    generator = torch.Generator().manual_seed(seed)
    size = (len(lengths), max(lengths))
    ids = torch.randint(FIRST_ID, FIRST_ID + NUM_IDS, size, generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids.to(run.device), mask.to(run.device)
