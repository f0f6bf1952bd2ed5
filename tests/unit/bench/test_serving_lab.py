"""The table and the plots of the serving lab show what was measured."""

import xml.etree.ElementTree as ElementTree

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bench.peers.load import Load
from bench.serving_lab.plots import draw
from bench.serving_lab.rows import row_beside, row_of, table
from bench.serving_lab.stages import means, totals


@pytest.fixture
def page():
    """Histograms as a web server shows them, with values to add; the page."""
    registry = CollectorRegistry()
    labels = ("worker", "stage", "priority")
    stages = Histogram("evascore_stage_seconds", "Stages.", labels, registry=registry)
    sizes = Histogram("evascore_batch_texts", "Texts.", ("worker",), registry=registry)

    def add(*times, worker="w", stage="queue", priority="interactive", batch=()):
        for time_s in times:
            stages.labels(worker, stage, priority).observe(time_s)
        for num_texts in batch:
            sizes.labels(worker).observe(num_texts)
        return generate_latest(registry).decode()

    return add


def test_means_are_of_what_came_between_two_readings_of_all_workers(page):
    before = totals(page(100.0, batch=[7]))
    page(1.0, 2.0, batch=[3])
    page(6.0, worker="v", batch=[1])
    page(50.0, priority="bulk")
    after = totals(page(0.5, stage="compute"))

    found = means(before, after)

    assert found["queue"] == pytest.approx(3.0)
    assert found["compute"] == pytest.approx(0.5)
    assert found["batch_texts"] == pytest.approx(2.0)
    assert found["wait"] == 0


LOAD = Load([10.0, 20.0, 30.0], elapsed_s=0.1)
STAGES_S = {"queue": 0.005, "wait": 0.001, "compute": 0.010, "batch_texts": 1.5}


def test_rest_is_what_the_stages_do_not_explain():
    row = row_of(("micro-batches", "4 texts", 8), LOAD, STAGES_S)
    assert row.texts_per_s == pytest.approx(30)
    assert row.mean_ms == pytest.approx(20)
    assert (row.queue_ms, row.wait_ms, row.compute_ms) == pytest.approx((5, 1, 10))
    assert row.rest_ms == pytest.approx(4)
    assert row.figures()["4_texts_clients_8_queue_ms"] == 5


def test_a_server_that_says_nothing_queues_what_it_takes_longer_than_for_one_client():
    row = row_beside(("fastapi", "FastAPI", 8), LOAD, alone_ms=12.0)
    assert (row.compute_ms, row.queue_ms, row.rest_ms) == pytest.approx((12, 8, 0))


def test_table_has_a_line_for_each_row():
    text = table([row_of(("micro-batches", "4 texts", 8), LOAD, STAGES_S)])
    head, rule, line = text.splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line.startswith("| 4 texts | 8 | 30.0 | 20.0 |")


def test_plots_name_each_server_and_are_drawn_with_what_there_is(tmp_path):
    places = [("fastapi", "FastAPI", 1), ("fastapi", "FastAPI", 8), ("workers", "2 workers", 1)]
    rows = [row_of(place, LOAD, STAGES_S) for place in places]

    draw(rows[:1], [], tmp_path)
    assert not (tmp_path / "serving_lab_workers.svg").exists()
    draw(rows, [(1, 20.0), (2, 15.0)], tmp_path)

    names = {"throughput", "latency", "queue", "workers", "stages", "compute"}
    pictures = {name: tmp_path / f"serving_lab_{name}.svg" for name in names}
    texts = {
        name: [each.text for each in ElementTree.parse(path).iter() if each.text]
        for name, path in pictures.items()
    }
    assert "FastAPI" in texts["throughput"]
    assert "FastAPI" not in texts["workers"]
    assert "2 workers" in texts["workers"]
    assert {"queue", "wait", "compute", "rest"} <= set(texts["stages"])
