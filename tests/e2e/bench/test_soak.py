"""The load and the bookkeeping of `bench.soak`; a soak itself takes hours."""

import asyncio
from contextlib import nullcontext

import pytest
import redis

from bench.soak import mix
from bench.soak.__main__ import KINDS, Period, Phase, phases, tenths
from bench.soak.memory import Memory, Point, slope
from bench.soak.mix import Answered, Owner
from tests.conftest import wait_until
from tests.service import suspended

TEXTS = ["A text.", "Another text, which is longer."]


def test_every_kind_of_request_is_served(scoring):
    async def once_each() -> Owner:
        owner = Owner(scoring.url, "no-key-is-needed", TEXTS, 0)
        for kind in KINDS:
            # A job that has ended cannot be cancelled.
            is_still = kind == "cancel"
            with suspended(scoring.part("worker")) if is_still else nullcontext():
                await owner.send({kind: 1.0}, rate_per_s=20, duration_s=0.2, seed=5)
        await owner.close()
        return owner

    owner = asyncio.run(once_each())
    served = {f"{kind}: {204 if kind == 'erase' else 200}" for kind in KINDS}
    assert owner.counts.keys() == served, owner.counts
    assert len(owner.answered) == owner.counts["text: 200"] > 0
    assert all(each.latency_s > 0 for each in owner.answered)


def test_load_ends_though_its_last_requests_are_not_answered(scoring, monkeypatch):
    monkeypatch.setattr(mix, "LAST_ANSWERS_S", 0.2)

    async def some_texts() -> Owner:
        owner = Owner(scoring.url, "no-key-is-needed", TEXTS, 0)
        await owner.send({"text": 1.0}, rate_per_s=20, duration_s=0.4, seed=5)
        await owner.close()
        return owner

    with suspended(scoring.part("worker")):
        owner = asyncio.run(some_texts())
    assert owner.counts.keys() == {"no answer in time"}
    assert not owner.answered


def test_memory_of_processes_and_of_redis_is_sampled(scoring):
    memory = Memory(lambda: {"worker": scoring.part("worker")}, scoring.redis, every_s=0.01)
    memory.start()
    try:
        wait_until(lambda: len(memory.points.get("redis_keys", [])) > 2)
    finally:
        memory.stop()
    growth = memory.growth("worker_rss_mib", 0, float("inf"))
    assert growth is not None
    assert growth.largest > 50
    assert memory.growth("worker_rss_mib", 0, 0) is None


def test_largest_value_of_each_part_of_a_time():
    memory = Memory(dict, redis.Redis)
    memory.points["w"] = [
        Point(*each) for each in ((9, 9), (10, 1), (12, 3), (19, 2), (30, 4), (31, 9))
    ]
    assert memory.largest_by_part("w", since=10, until=30, parts=4) == [3, 2, None, 4]


def test_growth_is_the_slope_of_the_line_through_all_points():
    assert slope([Point(0, 1), Point(1, 3), Point(2, 5)]) == pytest.approx(2)
    assert slope([Point(0, 4), Point(9, 4)]) == 0
    assert slope([Point(3, 4)]) == 0


def test_a_text_counts_in_the_tenth_in_which_it_was_due():
    period = Period(Phase("calm", 0.7, 100), began=50, ended=150)
    answered = [Answered(50, 1), Answered(61, 2), Answered(149.9, 3), Answered(150, 4)]
    assert tenths(answered, period) == [[1], [2], *[[]] * 7, [3, 4]]


def test_phases_fill_the_time():
    assert sum(each.seconds for each in phases(7200)) == pytest.approx(7200)
