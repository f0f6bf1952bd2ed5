"""What a worker tells of itself: figures of recent work, of bounded size."""

import orjson
import pytest

from worker.process.lease import RECENT_BATCHES, RECENT_JOBS, OwnStatus
from worker.process.startup import Startup


@pytest.fixture
def status() -> OwnStatus:
    return OwnStatus("w", 100, Startup("load", began_at=0.0))


def test_last_batches_are_kept_oldest_first(status):
    for num_texts in range(1, RECENT_BATCHES + 3):
        status.count_micro_batch(num_texts, 10 * num_texts, elapsed_s=0.0125)
    found = orjson.loads(status.encode())["recent_batches"]
    assert len(found) == RECENT_BATCHES
    assert found[0] == [3, 30, 12.5]
    assert found[-1] == [RECENT_BATCHES + 2, 10 * (RECENT_BATCHES + 2), 12.5]


def test_last_latencies_are_kept_oldest_first(status):
    status.count_latencies(ms / 1000 for ms in range(RECENT_JOBS))
    status.count_latencies([0.0281])
    found = orjson.loads(status.encode())["recent_latencies_ms"]
    assert len(found) == RECENT_JOBS
    assert (found[0], found[-1]) == (1.0, 28.1)


def test_clock_of_the_web_tier_that_is_ahead_gives_no_negative_latency(status):
    status.count_latencies([-3.0])
    assert status.recent_latencies_ms == (0.0,)


def test_before_the_first_batch_nothing_is_claimed(status):
    found = orjson.loads(status.encode())
    assert (found["recent_batches"], found["recent_latencies_ms"]) == ([], [])
    assert (found["bytes_per_s"], found["mean_batch_texts"]) == (None, None)
