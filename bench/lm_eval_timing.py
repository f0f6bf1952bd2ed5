"""Times lm-eval's models on the same requests; runs in the virtual environment of lm-eval."""

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

from evascore.lm_eval.model import EvascoreLM

WORDS = ("the", "of", "and", "to", "in", "was", "he", "for", "with", "as", "his", "on", "be", "at")
TOLERANCE_NATS = 1e-2


def main() -> None:
    """Write one JSON object of seconds per round."""
    url, setup = sys.argv[1], json.load(sys.stdin)
    completions = {"model": "evascore", "base_url": f"{url}/v1/completions", "max_length": 32_767}
    models = {
        "stock_1x1": LocalCompletionsAPI(**completions),
        "stock_4x8": LocalCompletionsAPI(**completions, num_concurrent=4, batch_size=8),
        "evascore": EvascoreLM(url=url),
    }
    for number in range(setup["rounds"]):
        draw = random.Random(number)
        pairs, texts = _pairs(draw, setup), _texts(draw, setup)
        found = {}
        for kind, asked in (("choices", pairs), ("rolling", texts)):
            answers = {
                f"{kind}_{name}": _timed(getattr(model, _METHODS[kind]), asked)
                for name, model in models.items()
            }
            _check_alike([answer for _, answer in answers.values()])
            found.update({f"{name}_s": seconds for name, (seconds, _) in answers.items()})
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


_METHODS = {"choices": "loglikelihood", "rolling": "loglikelihood_rolling"}


def _pairs(draw: random.Random, setup: dict[str, Any]) -> list[Instance]:
    pairs = [
        (context, " " + _text(draw, 25))
        for context in (_text(draw, setup["context_bytes"]) for _ in range(setup["questions"]))
        for _ in range(setup["choices"])
    ]
    return [Instance("loglikelihood", {}, pair, idx) for idx, pair in enumerate(pairs)]


def _texts(draw: random.Random, setup: dict[str, Any]) -> list[Instance]:
    texts = [_text(draw, setup["text_bytes"]) for _ in range(setup["texts"])]
    return [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]


def _text(draw: random.Random, num_bytes: int) -> str:
    return " ".join(draw.choices(WORDS, k=num_bytes // 2))[:num_bytes].strip()


def _timed(ask: Callable[..., list[Any]], requests: list[Instance]) -> tuple[float, list[float]]:
    began_at = time.perf_counter()
    answers = ask(requests, disable_tqdm=True)
    seconds = time.perf_counter() - began_at
    return round(seconds, 2), [a[0] if isinstance(a, tuple) else a for a in answers]


def _check_alike(answers: list[list[float]]) -> None:
    """A speed counts only for the same scores."""
    for numbers in zip(*answers, strict=True):
        assert max(numbers) - min(numbers) < TOLERANCE_NATS, numbers


if __name__ == "__main__":
    main()
