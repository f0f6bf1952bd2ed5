"""Runs in the virtual environment of lm-eval: evaluates tasks with each of several ways to ask.

Writes per way and task what was asked and what lm-eval made of the answers.
"""

import json
import sys
from collections.abc import Iterator

import lm_eval
from lm_eval.tasks import TaskManager

from evascore.lm_eval import model  # noqa: F401 - registers itself


def evaluated(folder: str, tasks: list[str], way: str, options: dict) -> Iterator[dict]:
    """Evaluate `tasks` with the options of `simple_evaluate` that make up `way`."""
    manager = TaskManager(include_path=folder, include_defaults=False)
    found = lm_eval.simple_evaluate(tasks=tasks, task_manager=manager, bootstrap_iters=0, **options)
    for task, samples in found["samples"].items():
        for sample in samples:
            asked, answers = sample["arguments"], sample["filtered_resps"]
            yield {"way": way, "task": task, "asked": asked, "answers": answers}


if __name__ == "__main__":
    asked_for = json.load(sys.stdin)
    for way, options in asked_for["ways"].items():
        for line in evaluated(asked_for["folder"], asked_for["tasks"], way, options):
            sys.stdout.write(json.dumps(line) + "\n")
