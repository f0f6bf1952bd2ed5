"""Bounds the memory that results of long jobs in hand take.

A long job takes several micro-batches, and keeps its outcomes until its last slice is scored. What
it holds besides grows with its text, and `max_queued_bytes` bounds the texts of all jobs.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from worker.scheduling.filling import Budget, OpenJob

# Limits of each priority, as multiples of `Budget.result_bytes`: the whole results of the jobs that
# go on, and what all long jobs hold before no further one is fetched. Those that go on may exceed
# their limit by one result, which leaves room for the first slices of the others.
MAX_GOING_ON = 2
MAX_HELD = 4


def long_jobs(jobs: Iterable[OpenJob], budget: Budget) -> list[OpenJob]:
    """Return the jobs that take several micro-batches."""
    return [job for job in jobs if job.num_bytes > budget.bytes]


def have_room_for_another(long: Iterable[OpenJob], budget: Budget) -> bool:
    """Return whether one more long job may be fetched besides these."""
    return sum(job.outcome_bytes for job in long) < MAX_HELD * budget.result_bytes


def without_held_back(jobs: Collection[OpenJob], budget: Budget) -> list[OpenJob]:
    """Return the jobs that may have slices in the next micro-batch.

    Of the long jobs of a priority, the first ones go on, as many as there is memory for their whole
    results. The others only have their first slices, so that none waits long for its start.

    Args:
        jobs: open jobs, in order of arrival.
        budget: limits of one micro-batch.
    """
    going_on: Counter[int] = Counter()
    held_back = set()
    for job in long_jobs(jobs, budget):
        if job.outcomes and going_on[job.priority] >= MAX_GOING_ON * budget.result_bytes:
            held_back.add(job.task_id)
        going_on[job.priority] += job.max_result_bytes
    return [job for job in jobs if job.task_id not in held_back]
