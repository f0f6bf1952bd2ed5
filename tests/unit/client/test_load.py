"""Arrivals, percentiles and the plot of `evascore bench`."""

import random
from itertools import pairwise
from statistics import mean, stdev
from xml.etree import ElementTree

import pytest

from evascore.measuring.load import arrivals, percentile
from evascore.measuring.plot import Point, latency_plot, round_step


def test_arrivals_are_a_poisson_process():
    moments = list(arrivals(50, 100, seed=1))
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert 0.9 < len(moments) / 5000 < 1.1
    # Of exponential gaps, mean and deviation are the same.
    assert stdev(gaps) == pytest.approx(mean(gaps), rel=0.1)
    assert moments == list(arrivals(50, 100, seed=1))


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3], 0.99, 3), ([1, 2, 3, 4], 0.5, 2), (range(1, 101), 0.95, 95)],
)
def test_percentile_is_the_nearest_rank(values, share, expected):
    assert percentile(values, share) == expected


def test_percentile_needs_no_order():
    values = list(range(1000))
    random.Random(0).shuffle(values)
    assert percentile(values, 0.99) == 989


@pytest.mark.parametrize("largest", [1e-3, 0.9, 1, 1.5, 3.99, 8, 9.99, 12_345])
def test_axis_has_a_legible_number_of_steps(largest):
    assert 2 <= largest / round_step(largest) <= 8


@pytest.mark.parametrize("scale", [0.01, 1, 1000])
def test_plot_is_xml_and_keeps_to_its_paper(scale):
    points = [
        Point(f"{n} <clients>", n * scale, (n * scale, 2 * n * scale, 3 * n * scale))
        for n in (1, 4, 16)
    ]
    drawn = ElementTree.fromstring(latency_plot(points, ("p50", "p95", "p99"), "a & b"))
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    dots = [node for node in drawn.iter() if node.tag.endswith("circle")]
    assert len(dots) == 9
    for dot in dots:
        assert 0 < float(dot.attrib["cx"]) < width
        assert 0 < float(dot.attrib["cy"]) < height
