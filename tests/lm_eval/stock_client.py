"""Runs in the virtual environment of lm-eval: its own client, with each way to send requests.

Writes per way and task what was asked and what lm-eval made of the answers.
"""

import json
import sys

import lm_eval
from lm_eval.tasks import TaskManager


def main(url: str, folder: str, max_length: str, tasks: str, ways: str) -> None:
    """Evaluate `tasks` with each of `ways`, `num_concurrent` x `batch_size`; write JSON lines."""
    for way in ways.split(","):
        num_concurrent, _, batch_size = way.partition("x")
        found = lm_eval.simple_evaluate(
            model="local-completions",
            model_args=(
                f"model=evascore,base_url={url}/v1/completions,"
                f"num_concurrent={num_concurrent},max_length={max_length}"
            ),
            batch_size=int(batch_size),
            tasks=tasks.split(","),
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            bootstrap_iters=0,
        )
        for task, samples in found["samples"].items():
            for sample in samples:
                asked, answers = sample["arguments"], sample["filtered_resps"]
                line = {"way": way, "task": task, "asked": asked, "answers": answers}
                sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
