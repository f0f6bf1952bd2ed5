"""Draws line charts as SVG, among them the latency over throughput of `evascore bench`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 110, 50, 60
LINE_HEIGHT = 16
# Dots on more points than this would hide the line.
MAX_DOTS = 32
# Okabe and Ito's colours, which colour-blind readers can tell apart, dark enough for lines.
_COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7")


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart."""

    title: str
    low: float
    high: float
    """Values outside `low` to `high` are drawn at the edge."""
    ticks: Sequence[float]
    """Where grid lines are drawn, each with its number."""
    is_logarithmic: bool = False

    def share(self, value: float) -> float:
        """Position of a value on the axis: 0 at `low`, 1 at `high`."""
        value = min(max(value, self.low), self.high)
        if self.is_logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; `points` are (x, y) values."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of one load, for `latency_plot`."""

    label: str
    texts_per_s: float
    latencies_ms: tuple[float, ...]


def latency_plot(points: Sequence[Point], names: Sequence[str], title: str) -> str:
    """Draw one line per latency in `names` over the throughput; latencies are logarithmic."""
    largest = max(point.texts_per_s for point in points) or 1.0
    step = round_step(largest)
    across = Axis(
        "texts per second", 0, largest, [n * step for n in range(int(largest / step) + 1)]
    )
    latencies = [ms for point in points for ms in point.latencies_ms]
    low, high = math.floor(math.log10(min(latencies))), math.floor(math.log10(max(latencies))) + 1
    powers = [10.0**exponent for exponent in range(low, high + 1)]
    up = Axis("milliseconds", powers[0], powers[-1], powers, is_logarithmic=True)
    lines = [
        Line(name, [(point.texts_per_s, point.latencies_ms[number]) for point in points])
        for number, name in enumerate(names)
    ]
    notes = [(p.texts_per_s, min(p.latencies_ms), p.label) for p in points]
    return chart(title, lines, across, up, notes)


def chart(
    title: str,
    lines: Sequence[Line],
    across: Axis,
    up: Axis,
    notes: Sequence[tuple[float, float, str]] = (),
) -> str:
    """Draw a line chart as SVG; each line is named at its end.

    Args:
        notes: texts to write below points, as (x, y, text).
    """
    parts = [
        _text(LEFT, TOP - 22, title, size=15),
        _text(WIDTH - RIGHT, HEIGHT - 16, across.title, anchor="end"),
        _text(LEFT, TOP - 6, up.title, size=11),
        *_grid(across, up),
    ]
    ends = _apart([_place(line.points[-1], across, up)[1] for line in lines])
    for line, end, colour in zip(lines, ends, cycle(_COLOURS), strict=False):
        places = [_place(point, across, up) for point in line.points]
        parts += _line(places, colour)
        parts.append(_text(WIDTH - RIGHT + 12, end + 4, line.name, colour=colour))
    for x, y, note in notes:
        left, top = _place((x, y), across, up)
        parts.append(_text(left, top + 16, note, size=10, anchor="middle"))
    return _document(parts, title)


def round_step(largest: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides 0 to `largest` into 2 to 8 parts."""
    power = 10.0 ** math.floor(math.log10(largest or 1.0))
    steps = (power * factor for factor in (0.2, 0.5, 1.0, 2.0))
    return next(step for step in steps if (largest or 1.0) / step <= 8)


def _place(point: tuple[float, float], across: Axis, up: Axis) -> tuple[float, float]:
    """Where a point lies on the paper."""
    x, y = point
    left = LEFT + (WIDTH - LEFT - RIGHT) * across.share(x)
    top = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * up.share(y)
    return left, top


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    """A faint line and a number at each tick."""
    for tick in up.ticks:
        _, y = _place((across.low, tick), across, up)
        yield _segment(LEFT, y, WIDTH - RIGHT, y)
        yield _text(LEFT - 8, y + 4, f"{tick:g}", size=11, anchor="end")
    for tick in across.ticks:
        x, _ = _place((tick, up.low), across, up)
        yield _segment(x, TOP, x, HEIGHT - BOTTOM)
        yield _text(x, HEIGHT - BOTTOM + 18, f"{tick:g}", size=11, anchor="middle")


def _line(places: Sequence[tuple[float, float]], colour: str) -> list[str]:
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = places if len(places) <= MAX_DOTS else ()
    return [
        f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in dots),
    ]


def _apart(heights: Sequence[float]) -> list[float]:
    """Move labels down until none overlaps the one above it."""
    moved = [0.0] * len(heights)
    above = float(-LINE_HEIGHT)
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        above = moved[number] = max(heights[number], above + LINE_HEIGHT)
    return moved


def _segment(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#888" stroke-opacity=".35"/>'


def _text(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", colour: str = "#555"
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(text)}</text>'


def _document(parts: Sequence[str], title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])
