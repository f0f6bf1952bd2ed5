"""Draws latency over throughput as an SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 110, 50, 60
# Told apart by those who see few colours, on white and on black paper.
_COLOURS = ("#0072b2", "#e69f00", "#d55e00")


@dataclass(frozen=True, slots=True)
class Point:
    """One load: what it is called, what it achieved, how long it took."""

    label: str
    texts_per_s: float
    latencies_ms: tuple[float, ...]


def latency_plot(points: Sequence[Point], names: Sequence[str], title: str) -> str:
    """An SVG: one line per latency in `names`, over the throughput; latencies logarithmic."""
    across = _linear(max(point.texts_per_s for point in points))
    latencies = [ms for point in points for ms in point.latencies_ms]
    low, high = (10 ** edge(math.log10(ms)) for edge, ms in _edges(latencies))
    up = _logarithmic(low, high)
    parts = [
        _text(LEFT, TOP - 22, title, size=15),
        _text(WIDTH - RIGHT, HEIGHT - 16, "texts per second", anchor="end"),
        _text(LEFT, TOP - 6, "milliseconds", size=11),
        *_frame(across, up, max(point.texts_per_s for point in points), low, high),
    ]
    for number, name in enumerate(names):
        parts += _line(points, number, name, across, up)
    for point in points:
        x, y = across(point.texts_per_s), up(min(point.latencies_ms))
        parts.append(_text(x, y + 16, point.label, size=10, anchor="middle"))
    return _document(parts, title)


_Scale = Callable[[float], float]


def _edges(latencies: Sequence[float]) -> list[tuple[Callable[[float], int], float]]:
    return [(math.floor, min(latencies)), (lambda log: math.floor(log) + 1, max(latencies))]


def _linear(largest: float) -> _Scale:
    return lambda value: LEFT + (WIDTH - LEFT - RIGHT) * value / (largest or 1.0)


def _logarithmic(low: float, high: float) -> _Scale:
    span = math.log(high / low)
    return lambda value: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(value / low) / span


def _frame(across: _Scale, up: _Scale, largest: float, low: float, high: float) -> list[str]:
    """Axes, and a faint line at each power of ten and each round number of texts."""
    parts = []
    for exponent in range(round(math.log10(low)), round(math.log10(high)) + 1):
        y = up(10**exponent)
        parts.append(_segment(LEFT, y, WIDTH - RIGHT, y))
        parts.append(_text(LEFT - 8, y + 4, f"{10**exponent:g}", size=11, anchor="end"))
    step = round_step(largest)
    for number in range(int(largest / step) + 1):
        x = across(number * step)
        parts.append(_segment(x, TOP, x, HEIGHT - BOTTOM))
        label = f"{number * step:g}"
        parts.append(_text(x, HEIGHT - BOTTOM + 18, label, size=11, anchor="middle"))
    return parts


def round_step(largest: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides 0 to `largest` into 2 to 8 parts."""
    power = 10.0 ** math.floor(math.log10(largest or 1.0))
    steps = (power * factor for factor in (0.2, 0.5, 1.0, 2.0))
    return next(step for step in steps if (largest or 1.0) / step <= 8)


def _line(points: Sequence[Point], number: int, name: str, across: _Scale, up: _Scale) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    places = [(across(p.texts_per_s), up(p.latencies_ms[number])) for p in points]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    legend_y = TOP + 14 + 18 * number
    return [
        f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *dots,
        _text(WIDTH - RIGHT + 12, legend_y, name, size=12, colour=colour),
    ]


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
