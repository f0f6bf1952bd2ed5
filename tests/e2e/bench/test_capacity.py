"""The check of the queueing model measures real workers, and compares the same texts."""

import pytest

from bench.capacity.checking import calibrate, compare_full, compare_load
from bench.capacity.queueing import Workers
from bench.capacity.sleeping_times import FIXED_S, S_PER_BYTE
from bench.fleet import fleet
from bench.texts import make_texts
from tests.service import TINY_CHECKPOINT

MAX_BYTES = 1024


def test_check_measures_service_times_throughput_and_waits():
    texts = make_texts(40)
    budget = {"micro_batch_bytes": str(MAX_BYTES)}
    program = "bench.capacity.sleeping_worker"
    with fleet(TINY_CHECKPOINT, 1, budget, program=program, is_warm=True) as workers:
        service = calibrate(workers, texts, num_rounds=1)
        model = Workers(1, service, MAX_BYTES)
        full, _ = compare_full(workers, texts, model)
        waits = compare_load(workers, texts, 4.0, 3.0, model)
        batches = workers.micro_batches()
    # A worker that sleeps is never faster than it should be, whatever else runs.
    assert all(
        each.ended_at - each.began_at > 0.9 * (FIXED_S + S_PER_BYTE * each.num_bytes)
        for each in batches
    )
    assert max(each.num_bytes for each in batches) > MAX_BYTES // 2
    assert service.of(MAX_BYTES) > 0
    assert service.fetch_s > 0
    assert full["full_texts_per_s"] > 0
    assert full["full_ratio"] == pytest.approx(
        full["full_texts_per_s_computed"] / full["full_texts_per_s"], rel=0.01
    )
    assert waits["texts"] > 0
    for name in ("measured", "computed", "computed_here"):
        assert waits[f"wait_mean_ms_{name}"] > 0
        assert waits[f"wait_p95_ms_{name}"] > 0
