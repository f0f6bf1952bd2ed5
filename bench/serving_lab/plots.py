"""Draws the plots of the lab, as SVG files."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.serving_lab.rows import Row
from evascore.measuring.plot import Axis, Line, chart, round_step

STAGES = ("queue", "wait", "compute", "rest")


def draw(rows: Sequence[Row], num_texts_ms: Sequence[tuple[float, float]], folder: Path) -> None:
    """Draw what was measured so far.

    Args:
        num_texts_ms: sizes of micro-batches in texts, and the compute time per text in ms.
    """
    one = [row for row in rows if row.part != "workers"]
    several = [row for row in rows if row.part == "workers"]
    for name, picture in _pictures(one, several, num_texts_ms):
        folder.mkdir(exist_ok=True)
        (folder / f"serving_lab_{name}.svg").write_text(picture)


def _pictures(
    one: Sequence[Row], several: Sequence[Row], num_texts_ms: Sequence[tuple[float, float]]
) -> Iterator[tuple[str, str]]:
    if one:
        yield "throughput", _over_clients("Throughput of one core", one, _throughput)
        yield "latency", _over_clients("Mean latency, one core", one, lambda row: row.mean_ms)
        yield "queue", _over_clients("Mean time in the queue, one core", one, _queue)
    if several:
        yield "workers", _over_clients("Throughput of 1 and 2 workers", several, _throughput)
        last = [row for row in several if row.server == several[-1].server]
        yield "stages", _stages(last)
    if num_texts_ms:
        yield "compute", _compute(num_texts_ms)


def _throughput(row: Row) -> float:
    return row.texts_per_s


def _queue(row: Row) -> float:
    return row.queue_ms + row.wait_ms


def _over_clients(title: str, rows: Sequence[Row], value: Callable[[Row], float]) -> str:
    servers = list(dict.fromkeys(row.server for row in rows))
    lines = [
        Line(server, [(row.clients, value(row)) for row in rows if row.server == server])
        for server in servers
    ]
    return _drawn(title, lines, "texts per second" if value is _throughput else "milliseconds")


def _stages(rows: Sequence[Row]) -> str:
    lines = [
        Line(stage, [(row.clients, getattr(row, f"{stage}_ms")) for row in rows])
        for stage in STAGES
    ]
    return _drawn(f"Where the time goes: {rows[0].server}", lines, "milliseconds")


def _drawn(title: str, lines: Sequence[Line], unit: str) -> str:
    points = [point for line in lines for point in line.points]
    clients = sorted({x for x, _ in points})
    across = Axis("clients", 0, clients[-1], clients)
    return chart(title, lines, across, _upright(unit, max(y for _, y in points)))


def _compute(num_texts_ms: Sequence[tuple[float, float]]) -> str:
    sizes = [size for size, _ in num_texts_ms]
    across = Axis("texts of a micro-batch", sizes[0], max(sizes[-1], 2), sizes, is_logarithmic=True)
    up = _upright("milliseconds per text", max(ms for _, ms in num_texts_ms))
    lines = [Line("compute", num_texts_ms)]
    return chart("Compute time per text, one core", lines, across, up)


def _upright(unit: str, largest: float) -> Axis:
    high = max(largest, 1e-3) * 1.05
    step = round_step(high)
    return Axis(unit, 0, high, [step * number for number in range(int(high / step) + 1)])
