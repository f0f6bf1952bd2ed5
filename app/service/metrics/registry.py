"""Counts the requests of this process, and holds the registry of all metrics.

No label holds a value that a client chose.
"""

import platform
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from app.service.metrics.overview import OverviewCollector
from app.service.slots import ConnectionSlots
from contract import __version__
from contract.store.overview import OverviewReader

# The longest wait for a result is EVASCORE_MAX_WAIT_S, 30 s.
REQUEST_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one application."""

    def __init__(
        self,
        overview: OverviewReader,
        slots: Mapping[str, ConnectionSlots],
        codes: Iterable[str],
    ) -> None:
        """Collect what `overview` reads, and how many of the `slots` are taken.

        Args:
            codes: of the errors that a request may be answered with.
        """
        self.registry = CollectorRegistry()
        self._taken = Gauge(
            "evascore_http_open_requests",
            "Requests that wait for a result, stream events or upload a batch; and connections, "
            "except those of trusted proxies.",
            ("kind",),
            registry=self.registry,
        )
        for kind, each in slots.items():
            self.show_slots(kind, each)
        build = Gauge(
            "evascore_build_info",
            "The release of the web server; always 1.",
            ("version", "python"),
            registry=self.registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self.registry.register(OverviewCollector(overview))
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "evascore_http_requests",
            "Answered requests.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._problems = Counter(
            "evascore_http_problems",
            "Refused and failed requests, by the code of the error.",
            ("code",),
            registry=self.registry,
        )
        for code in codes:
            self._problems.labels(code)
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._request_seconds = Histogram(
            "evascore_http_request_seconds",
            "Time from a request's header to its answer, including the wait for a result.",
            ("route",),
            buckets=REQUEST_BOUNDS_S,
            registry=self.registry,
        )

    def show_slots(self, kind: str, slots: ConnectionSlots) -> None:
        """Show at each scrape how many of `slots` are taken."""
        self._taken.labels(kind).set_function(slots.num_held)

    def count_problem(self, code: str) -> None:
        """Count an error that a request was answered with; `code` is one of ours."""
        self._problems.labels(code).inc()

    def count_request(self, method: str, route: str | None, status: int, elapsed_s: float) -> None:
        """Count an answered request.

        Args:
            route: its template; None when no route matched.
        """
        kind = method if method in METHODS else "other", route or "none", status
        if kind not in self._series:
            # Finding them by their labels takes longer than counting.
            self._series[kind] = self._requests.labels(*kind), self._request_seconds.labels(kind[1])
        requests, seconds = self._series[kind]
        requests.inc()
        seconds.observe(elapsed_s)
