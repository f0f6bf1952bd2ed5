"""What is read from Redis once a second is read by one request; the others take what is known."""

import time

import pytest

from app.service.recent_workers import STATUS_MAX_AGE_S, RecentWorkers
from contract.errors import BrokerUnavailable
from contract.settings import load_settings
from contract.store.admission.memory import SAMPLE_S, MemorySampler


def test_memory_is_sampled_by_one_caller():
    now, samples = [0.0], []

    class Client:
        def info(self, section):
            # Another request asks meanwhile.
            samples.append(sampler.read() if samples else None)
            return {"used_memory": len(samples), "maxmemory": 0}

    sampler = MemorySampler(Client(), load_settings({}), clock=lambda: now[0])
    first = sampler.read()
    now[0] += SAMPLE_S + 0.01
    second = sampler.read()
    assert samples == [None, first]
    assert second != first


@pytest.mark.parametrize("is_away", [False, True])
def test_workers_are_read_by_one_caller(monkeypatch, is_away):
    now, seen = [1.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Jobs:
        def worker_statuses(self):
            seen.append(workers.current_models() if seen else None)
            if is_away and len(seen) > 1:
                raise BrokerUnavailable("away")
            return []

        def current_models(self):
            return {"mine": f"{len(seen)}"}

    workers = RecentWorkers(Jobs(), load_settings({}))
    assert workers.current_models() == {"mine": "1"}
    now[0] += STATUS_MAX_AGE_S + 0.01
    assert workers.current_models() == ({} if is_away else {"mine": "2"})
    assert seen == [None, {"mine": "1"}]
