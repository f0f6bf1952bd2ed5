"""Reads the stages of scored jobs and the sizes of micro-batches from `/metrics`."""

from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

STAGES = ("queue", "wait", "compute", "store")


class Total(NamedTuple):
    """Sum and number of what a histogram has counted."""

    amount: float = 0.0
    number: float = 0.0


def totals(page: str) -> dict[str, Total]:
    """The interactive stages in seconds, and `batch_texts`; all workers together."""
    sums = dict.fromkeys((*STAGES, "batch_texts"), Total())
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = _name_of(family.name, sample.labels)
            if name is None:
                continue
            before, value = sums[name], sample.value
            if sample.name.endswith("_sum"):
                sums[name] = Total(before.amount + value, before.number)
            elif sample.name.endswith("_count"):
                sums[name] = Total(before.amount, before.number + value)
    return sums


def means(before: Mapping[str, Total], after: Mapping[str, Total]) -> dict[str, float]:
    """The mean of each histogram between two readings; 0 where nothing was counted."""
    found = {}
    for name, total in after.items():
        number = total.number - before[name].number
        found[name] = (total.amount - before[name].amount) / number if number else 0.0
    return found


def _name_of(family: str, labels: Mapping[str, str]) -> str | None:
    if family == "evascore_batch_texts":
        return "batch_texts"
    if family == "evascore_stage_seconds" and labels["priority"] == "interactive":
        return labels["stage"]
    return None
