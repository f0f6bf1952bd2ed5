"""The stages of a request add up to what the client sees."""

import pytest

from bench.latency import STAGES, by_stage


def test_stages_of_a_request_add_up():
    answer = {
        "submitted_at": "1970-01-01T00:01:40.002Z",
        "result": {"timings_ms": {"queue": 3.0, "batch_wait": 0.5, "compute": 20.0, "total": 24.0}},
    }
    found = by_stage(answer, began_at=100.0, wall_ms=30.0)
    assert found["accept"] == pytest.approx(2)
    assert found["finish"] == pytest.approx(0.5)
    assert found["answer"] == pytest.approx(4)
    assert found["beyond_compute"] == pytest.approx(10)
    assert tuple(found) == tuple(STAGES)
    *stages, _, wall = found.values()
    assert sum(stages) == pytest.approx(wall)
