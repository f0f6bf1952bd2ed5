"""The queueing model: against formulas, by hand, and as the planner uses it."""

import math
import random
import re
import sys
from dataclasses import replace
from statistics import mean

import pytest

from bench import roofline
from bench.capacity.__main__ import main
from bench.capacity.planning import CannotPlan, Demand, plan
from bench.capacity.queueing import (
    Arrival,
    Workers,
    full_texts_per_s,
    p95,
    poisson,
    simulate,
)
from bench.capacity.service_time import CannotFit, ServiceTime, fit
from bench.fleet import MicroBatch
from contract.settings import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "capacity.md").read_text()


def exponential_ratios(count=20_000):
    """Service times by their mean, as an exponential distribution has them."""
    generator = random.Random(1)
    drawn = [generator.expovariate(1.0) for _ in range(count)]
    middle = mean(drawn)
    return tuple(each / middle for each in drawn)


def erlang_c_wait(rate, service_s, count):
    """Mean wait of M/M/c: Erlang's C formula."""
    offered = rate * service_s
    last = offered**count / math.factorial(count) / (1 - offered / count)
    waits = last / (sum(offered**n / math.factorial(n) for n in range(count)) + last)
    return waits * service_s / (count - offered)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_waits_of_single_texts_are_those_of_erlang(count):
    service = ServiceTime((0.0,), fixed_s=0.1, s_per_byte=0.0, ratios=exponential_ratios())
    workers, rate = Workers(count, service, max_bytes=1, max_texts=1), 7.0 * count
    arrivals = poisson(rate, [1], 300_000 / rate, seed=3)
    found = simulate(arrivals, workers)
    assert mean(each.wait_s for each in found.served) == pytest.approx(
        erlang_c_wait(rate, 0.1, count), rel=0.1
    )
    assert found.busy_share == pytest.approx(0.7, rel=0.02)


def test_texts_that_wait_go_together_up_to_the_budget():
    service = ServiceTime((0.5,), fixed_s=1.0, s_per_byte=0.01)
    workers = Workers(1, service, max_bytes=100, max_texts=3)
    # The second comes while the worker opens the first. Three texts, or 100 bytes, go together. The
    # last one is larger than the budget, and goes alone.
    arrivals = [Arrival(10.0 + at, size) for at, size in (
        (0.0, 50), (0.4, 50), (1.0, 20), (1.0, 30), (2.0, 40), (2.0, 50), (2.1, 300),
    )]  # fmt: skip
    found = simulate(arrivals, workers)
    ends = [each.at_s + one.latency_s for each, one in zip(arrivals, found.served, strict=True)]
    waits = [one.wait_s for one in found.served]
    assert ends == pytest.approx([12.0, 14.5, 14.5, 14.5, 16.9, 16.9, 21.4])
    assert waits == pytest.approx([0.5, 2.1, 1.5, 1.5, 3.0, 3.0, 5.3])
    assert found.mean_batch_texts == 7 / 4


def test_two_workers_share_what_waits():
    workers = Workers(2, ServiceTime((0.0,), 1.0, 0.0), max_bytes=10, max_texts=1)
    found = simulate([Arrival(0.0, 1)] * 4, workers)
    assert [each.latency_s for each in found.served] == [1, 1, 2, 2]
    assert found.busy_share == 1


def test_full_throughput_counts_what_a_micro_batch_costs_besides_its_bytes():
    workers = Workers(2, ServiceTime((0.1,), 0.4, 0.01), max_bytes=100)
    # Two texts of 40 bytes fit, a third does not: 80 bytes take 1.3 s.
    assert full_texts_per_s([40] * 1000, workers) == pytest.approx(2 * 2 / 1.3)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (19, 19), (20, 19), (21, 20), (100, 95)])
def test_p95_is_one_of_the_values(count, expected):
    assert p95(range(count, 0, -1)) == expected


def batches(sizes, *, noise=0.0, worker="w"):
    """Micro-batches of one text that take 0.1 s and 1 ms per byte, with pauses of 20 ms."""
    generator, at_s, found = random.Random(0), 0.0, []
    for number, size in enumerate(sizes):
        time_s = (0.1 + 0.001 * size) * (1 + generator.uniform(-noise, noise))
        found.append(MicroBatch(worker, 1, size, at_s, at_s + time_s, (f"{worker}{number}",)))
        at_s += time_s + 0.02
    return found


def early(measured, ahead_s=100.0):
    """All jobs submitted so long before the first micro-batch began."""
    return {task_id: -ahead_s for each in measured for task_id in each.task_ids}


def test_fit_finds_the_line_and_the_time_of_a_fetch():
    measured = batches([10, 300, 20, 2000, 50])
    found = fit(measured, early(measured, ahead_s=0.02))
    assert (found.fetch_s, found.fixed_s, found.s_per_byte) == pytest.approx((0.02, 0.1, 0.001))
    assert found.ratios == pytest.approx([1.0] * 5)
    assert found.of(400) == pytest.approx(0.5)


def test_fit_weighs_small_micro_batches_as_much_as_large_ones():
    measured = batches([10, 50, 4000] * 200, noise=0.2)
    found = fit(measured, early(measured))
    assert found.fixed_s == pytest.approx(0.1, rel=0.05)
    assert mean(found.ratios) == pytest.approx(1, rel=0.01)
    assert 0.75 < min(found.ratios) < 0.85


def test_time_without_a_text_is_no_fetch():
    one, other = batches([10, 20]), batches([30, 40], worker="v")
    later = [replace(each, began_at=each.began_at + 9, ended_at=each.ended_at + 9) for each in one]
    # The jobs of the first worker come at 0 and 8.995, those of the second one always wait.
    measured = [one[0], later[1], *other]
    submitted_at = {"w0": 0.0, "w1": later[1].began_at - 0.005, "v0": 0.0, "v1": 0.0}
    assert sorted(fit(measured, submitted_at).fetches_s) == pytest.approx([0, 0, 0.005, 0.02])


@pytest.mark.parametrize("sizes", [[], [70], [70, 70]])
def test_one_size_is_no_line(sizes):
    measured = batches(sizes)
    with pytest.raises(CannotFit):
        fit(measured, early(measured))


ONE = Workers(1, ServiceTime((0.003,), 0.03, 0.0001), max_bytes=16_384)


def test_plan_is_the_smallest_fleet_that_meets_the_target():
    demand = Demand(texts_per_s=120, bytes_per_text=400, p95_s=1.0)
    found = plan(demand, ONE, euros_per_gpu_hour=2.0)
    # 4.8 GPUs read 48,000 bytes per second.
    assert found.num_gpus >= 5
    assert found.p95_s <= 1.0
    assert 0 < found.utilisation <= 1
    assert found.full_texts_per_s > 120
    assert found.euros_per_month == found.num_gpus * 2 * 730
    assert found.euros_per_million_texts == pytest.approx(found.num_gpus * 2 / (120 * 3600) * 1e6)
    slower = plan(replace(demand, p95_s=found.p95_s - 0.01), ONE, euros_per_gpu_hour=2.0)
    assert slower.num_gpus > found.num_gpus


def test_target_below_the_time_of_a_lone_text_has_no_plan():
    with pytest.raises(CannotPlan, match="more GPUs do not help"):
        plan(Demand(1, 400, p95_s=0.05), ONE, euros_per_gpu_hour=1.0)


EXAMPLE = r"```sh\n(\.venv/bin/python -m bench\.capacity plan[^`]*?)```\n\n```\n(.*?)```"
EXAMPLES = re.findall(EXAMPLE, DOCUMENT, re.DOTALL)


@pytest.fixture
def run_plan(monkeypatch):
    """Runs a command of the document in this process; returns the exit code."""

    def run(command):
        words = command.replace("\\\n", " ").split()
        assert words[:3] == [".venv/bin/python", "-m", "bench.capacity"]
        monkeypatch.setattr(sys, "argv", words[2:])
        return main()

    return run


@pytest.mark.parametrize(("command", "output"), EXAMPLES)
def test_document_shows_what_the_command_prints(command, output, run_plan, capsys):
    assert run_plan(command) == 0
    assert capsys.readouterr().out == output


def test_document_takes_the_speed_of_an_l4_from_the_roofline():
    l4 = next(gpu for gpu in roofline.GPUS if gpu.name.startswith("L4"))
    int8 = next(mode for mode in roofline.MODES if mode.is_int8)
    s_per_kb = 1000 / roofline.ceiling(l4, int8)
    assert len(EXAMPLES) == 2
    assert all(f"--seconds-per-kb {s_per_kb:.3f}" in command for command, _ in EXAMPLES)


def test_impossible_target_is_said_in_one_line(run_plan, capsys):
    command, _ = EXAMPLES[0]
    assert run_plan(re.sub(r"--p95-s \S+", "--p95-s 0.01", command)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "raise --p95-s" in said.err
