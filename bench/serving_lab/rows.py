"""The rows of the lab's table: what clients saw of one server, and where the time went."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean

from bench.peers.load import Load

_COLUMNS = {
    "server": "server",
    "clients": "clients",
    "texts_per_s": "texts per second",
    "mean_ms": "latency, mean, ms",
    "p95_ms": "latency, p95, ms",
    "queue_ms": "queue, ms",
    "wait_ms": "wait, ms",
    "compute_ms": "compute, ms",
    "rest_ms": "rest, ms",
    "batch_texts": "texts of a micro-batch",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One server under one load; the four stages are means and add up to the mean latency."""

    part: str
    """The part of the lab that it belongs to."""
    server: str
    clients: int
    texts_per_s: float
    mean_ms: float
    p95_ms: float
    queue_ms: float
    """Until a worker opens the text; with FastAPI, what it takes longer than with one client."""
    wait_ms: float
    """From then until its micro-batch begins."""
    compute_ms: float
    """Of its micro-batch; with FastAPI, the latency of one client."""
    rest_ms: float
    """HTTP, storing and what else there is."""
    batch_texts: float

    def figures(self) -> dict[str, float]:
        """The figures by names that say what was measured."""
        server = self.server.lower().replace(" ", "_").replace(",", "")
        return {
            f"{server}_clients_{self.clients}_{name}": round(value, 2)
            for name, value in asdict(self).items()
            if isinstance(value, float)
        }


def row_of(place: tuple[str, str, int], load: Load, means_s: dict[str, float]) -> Row:
    """The row of a service that says itself how long the stages took.

    Args:
        place: part of the lab, server and number of clients.
        means_s: of `queue`, `wait` and `compute`, in seconds, and the mean `batch_texts`.
    """
    queue_ms, wait_ms, compute_ms = (means_s[x] * 1000 for x in ("queue", "wait", "compute"))
    latency_ms = mean(load.latencies_ms)
    return Row(
        *place,
        texts_per_s=load.num_texts / load.elapsed_s,
        mean_ms=latency_ms,
        p95_ms=load.percentile_ms(0.95),
        queue_ms=queue_ms,
        wait_ms=wait_ms,
        compute_ms=compute_ms,
        rest_ms=latency_ms - queue_ms - wait_ms - compute_ms,
        batch_texts=means_s["batch_texts"],
    )


def row_beside(place: tuple[str, str, int], load: Load, alone_ms: float) -> Row:
    """The row of a server that says nothing: what one client met counts as compute."""
    queue_s = mean(load.latencies_ms) / 1000 - alone_ms / 1000
    means_s = {"queue": queue_s, "wait": 0.0, "compute": alone_ms / 1000, "batch_texts": 1.0}
    return row_of(place, load, means_s)


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = [f"| {' | '.join(_COLUMNS.values())} |", "|---" * len(_COLUMNS) + "|"]
    for row in rows:
        cells = [_cell(getattr(row, name)) for name in _COLUMNS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(value: str | float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
