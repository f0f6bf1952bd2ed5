"""Compares scoring many continuations of one context together and one by one.

    python -m bench.shared_context [--model FOLDER]

Together, the context is read once (prefix sharing), so the time grows only with the bytes of the
continuations. Each figure is the shortest of three runs.
"""

import argparse
import time
from collections.abc import Iterator, Sequence

from bench.results import Results
from model import DEMO_CHECKPOINT, Scorer
from model.scoring.request import ScoreRequest

CONTEXT = (b"The quick brown fox jumps over the lazy dog. " * 40)[:1500]
CONTINUATION_BYTES = 20
NUM_CONTINUATIONS = (2, 8, 32, 128)
# Alone, each continuation reads the context again: more of them take long and tell no more.
MAX_ALONE = 32
NUM_RUNS = 3


def measure(scorer: Scorer) -> Iterator[dict[str, float]]:
    """Yield seconds by number of continuations, together and alone."""
    yield {"context_alone_s": _shortest_s(scorer, [ScoreRequest(text=CONTEXT)])}
    for number in NUM_CONTINUATIONS:
        texts = [f"{place:>{CONTINUATION_BYTES}}".encode() for place in range(number)]
        together = [ScoreRequest(context=CONTEXT, continuations=tuple(texts))]
        yield {f"together_{number}_s": _shortest_s(scorer, together)}
        if number <= MAX_ALONE:
            alone = [ScoreRequest(context=CONTEXT, continuations=(text,)) for text in texts]
            yield {f"alone_{number}_s": _shortest_s(scorer, alone)}


def _shortest_s(scorer: Scorer, requests: Sequence[ScoreRequest]) -> float:
    times = []
    for _ in range(NUM_RUNS):
        start = time.perf_counter()
        scorer.score(requests)
        times.append(time.perf_counter() - start)
    return round(min(times), 4)


def main() -> None:
    """Measure the checkpoint that the command line names, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.shared_context", description=__doc__)
    parser.add_argument("--model", default=str(DEMO_CHECKPOINT))
    scorer = Scorer.load(parser.parse_args().model)
    scorer.warm_up()
    setup = {
        "model": scorer.info.name,
        "num_parameters": scorer.info.num_parameters,
        "dtype": scorer.info.dtype,
        "context_bytes": len(CONTEXT),
        "continuation_bytes": CONTINUATION_BYTES,
        "num_runs": NUM_RUNS,
    }
    with Results("shared_context", setup) as results:
        for figures in measure(scorer):
            results.put(figures)


if __name__ == "__main__":
    main()
