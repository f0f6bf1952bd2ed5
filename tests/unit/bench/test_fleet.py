"""What workers did is read from their logs."""

import pytest

from bench.fleet import MicroBatch, micro_batches, steady_texts_per_s


def line(event, second, **fields):
    """A line of a worker's log, some seconds after a time."""
    return {"event": event, "timestamp": f"2026-11-27T12:00:{second:09.6f}Z", **fields}


NOON = 1795780800.0
SCORED = {"slices": 3, "bytes": 120, "jobs": 3, "compute_ms": 500.0}


def test_micro_batch_lasts_from_the_model_to_its_last_stored_result():
    lines = [
        line("worker_ready", 0),
        line("job_opened", 1.4, task_id="a"),
        line("micro_batch_scored", 2, **SCORED),
        line("job_ended", 2.25, task_id="a"),
        line("job_ended", 2.5, task_id="b"),
        line("micro_batch_scored", 4, **{**SCORED, "slices": 1}),
    ]
    first, second = micro_batches("w", lines)
    assert first == MicroBatch("w", 3, 120, NOON + 1.5, NOON + 2.5, ("a", "b"))
    # The worker was killed before it stored this one.
    assert second == MicroBatch("w", 1, 120, NOON + 3.5, NOON + 4)


def test_jobs_that_end_unscored_are_no_micro_batch():
    assert list(micro_batches("w", [line("job_ended", 1, task_id="a")])) == []


def batch(worker, began_at, ended_at, num_texts):
    """A micro-batch of some texts."""
    return MicroBatch(worker, num_texts, 100 * num_texts, began_at, ended_at)


def test_steady_throughput_is_that_of_the_time_in_which_all_worked():
    batches = [
        *(batch("a", 0, 2, 10), batch("a", 2, 4, 10), batch("a", 4, 10, 2)),
        batch("b", 1, 4, 9),
    ]
    # From 1 to 4: half of the first, all of the second, and all of b.
    assert steady_texts_per_s(batches) == pytest.approx((5 + 10 + 9) / 3)


def test_workers_that_never_worked_together_have_no_steady_throughput():
    assert steady_texts_per_s([batch("a", 0, 1, 5), batch("b", 2, 3, 5)]) == 0
