"""Endings that Redis refuses: written one by one, tried again, and failed after enough tries."""

from collections import Counter
from functools import partial

import pytest
import redis

from contract.messages import Job, decode_record, success_record
from contract.store.connection.refusals import NotStored, Reason
from contract.store.jobs.endings import Ending
from worker.scoring.outbox import MAX_TRIES, Outbox
from worker.scoring.outcomes import failed_ending

JOB = Job([{"text": "x"}], 1, submitted_at=0.0, deadline_at=60.0)


class Redis:
    """Takes endings, but refuses those with a large result, or all of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.refuses: Reason | None = None
        self.refuses_all = False
        self.write_s = 0.0
        self.writes: list[list[str]] = []
        self.stored: dict[str, str] = {}
        self.refusals: Counter[str] = Counter()
        self.outbox = Outbox(self._write, on_refusal=self._count, clock=lambda: self.now)

    def add(self, task_id: str, num_bytes: int = 0, *, has_substitute: bool = True) -> None:
        """Have the outbox take a result of about `num_bytes`."""
        record = success_record(task_id, None, JOB.facts(), 1.0)
        ending = Ending(task_id, record, stored_result=b"x" * num_bytes)
        instead = partial(failed_ending, task_id, JOB) if has_substitute else None
        self.outbox.add(ending, instead)

    def flush_until_empty(self, limit_s: float = 60) -> list:
        """Flush whenever something is due; the jobs that ended."""
        ended = []
        while self.outbox and self.now < limit_s:
            ended += self.outbox.flush()
            self.now += self.outbox.delay_s or 0
        return ended

    def _write(self, endings):
        self.writes.append([ending.task_id for ending in endings])
        if self.refuses and (
            self.refuses_all or any(len(ending.stored_result) > 1000 for ending in endings)
        ):
            self.now += self.write_s
            raise NotStored(self.refuses)
        for ending in endings:
            record = decode_record(ending.task_id, ending.record)
            self.stored[ending.task_id] = (record.error or {}).get("code", record.state)
        return ["SUCCESS"] * len(endings)

    def _count(self, reason, count):
        self.refusals[reason] += count


@pytest.fixture
def server() -> Redis:
    return Redis()


def test_endings_are_written_together(server):
    for task_id in "abc":
        server.add(task_id, 10)
    assert [each.task_id for each in server.outbox.flush()] == ["a", "b", "c"]
    assert server.writes == [["a", "b", "c"]]
    assert not server.outbox
    assert server.outbox.delay_s is None


@pytest.mark.parametrize("reason", ["full", "slow", "refused"])
def test_refused_ending_blocks_no_other_and_fails_after_enough_tries(server, reason):
    server.refuses = reason
    server.add("large", 5000)
    server.add("a")
    server.add("b")
    assert {each.task_id for each in server.outbox.flush()} == {"a", "b"}
    assert server.stored == {"a": "SUCCESS", "b": "SUCCESS"}
    assert [each.task_id for each in server.flush_until_empty()] == ["large"]
    assert server.stored["large"] == "result_not_stored"
    # Once together with the others, then alone, and last the record of the failure.
    assert server.writes.count(["large"]) == MAX_TRIES + 1
    assert server.refusals == {reason: MAX_TRIES}
    assert server.now < 10


def test_error_says_the_size_the_reason_and_what_to_do(server):
    server.refuses = "slow"
    errors = []
    record = success_record("a", None, JOB.facts(), 1.0)
    server.outbox.add(
        Ending("a", record, stored_result=b"x" * 5000),
        lambda error: errors.append(error) or failed_ending("a", JOB, error),
    )
    server.flush_until_empty()
    [error] = errors
    assert error.retryable
    assert error.details == {"reason": "slow", "result_bytes": len(record) + 5000}
    assert "fewer outputs" in error.message


def test_result_is_kept_while_redis_takes_nothing_and_stored_afterwards(server):
    server.refuses, server.refuses_all = "disk", True
    server.add("a", 5000)
    server.add("b")
    assert server.flush_until_empty(limit_s=100) == []
    # Smaller writes are not tried: the disk takes none.
    assert all(len(write) == 2 for write in server.writes)
    assert 15 < len(server.writes) < 40
    assert server.outbox.refused_since == 0.0
    server.refuses = None
    assert len(server.flush_until_empty(limit_s=200)) == 2
    assert set(server.stored.values()) == {"SUCCESS"}
    assert server.outbox.refused_since is None


def test_result_is_kept_where_even_the_failure_is_refused(server):
    server.refuses, server.refuses_all = "full", True
    server.add("a")
    assert server.flush_until_empty(limit_s=100) == []
    server.refuses = None
    server.flush_until_empty(limit_s=200)
    assert server.stored == {"a": "SUCCESS"}


@pytest.mark.parametrize("has_substitute", [True, False])
def test_job_that_redis_refuses_for_its_own_sake_is_given_up(server, has_substitute):
    server.refuses, server.refuses_all = "refused", True
    server.add("a", has_substitute=has_substitute)
    [ended] = server.flush_until_empty()
    assert (ended.task_id, ended.is_given_up) == ("a", True)


def test_round_ends_when_redis_is_slow_for_each_ending(server):
    server.refuses, server.refuses_all, server.write_s = "slow", True, 2.0
    for task_id in "abcdefgh":
        server.add(task_id)
    server.outbox.flush()
    assert server.now <= 8
    assert len(server.writes) <= 4


def test_large_endings_are_written_alone_after_the_small_ones(server):
    for task_id, num_bytes in {"large": 5 * 1024**2, "a": 10, "larger": 6 * 1024**2}.items():
        server.add(task_id, num_bytes)
    server.outbox.flush()
    assert server.writes == [["a"], ["large"], ["larger"]]


def test_redis_that_is_away_is_the_callers_affair(server):
    def write(endings):
        raise redis.ConnectionError

    outbox = Outbox(write, on_refusal=lambda *_: None)
    outbox.add(Ending("a"))
    with pytest.raises(redis.ConnectionError):
        outbox.flush()


def test_result_is_kept_however_long_redis_takes_nothing(server):
    server.refuses, server.refuses_all = "disk", True
    server.add("a")
    for _ in range(1_100):
        assert server.outbox.flush() == []
        server.now += server.outbox.delay_s
    server.refuses = None
    server.outbox.flush()
    assert server.stored == {"a": "SUCCESS"}


def test_full_disk_counts_as_no_try_of_an_ending(server):
    server.refuses, server.refuses_all = "disk", True
    server.add("a", 2000)
    for _ in range(MAX_TRIES + 1):
        server.outbox.flush()
        server.now += server.outbox.delay_s
    server.refuses, server.refuses_all = "slow", False
    server.outbox.flush()
    assert server.stored == {}
    server.refuses = None
    server.now += server.outbox.delay_s
    server.outbox.flush()
    assert server.stored == {"a": "SUCCESS"}
