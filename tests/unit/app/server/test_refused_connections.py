"""Clients without a connection are logged with their count, and not too often."""

from collections.abc import MutableMapping
from typing import Any

from structlog.testing import capture_logs

from app.server.refused_connections import LOG_EVERY_S, MAX_LINES, RefusedConnections


def counts(lines: list[MutableMapping[str, Any]]) -> list[tuple[str, int]]:
    """The logged clients, each with its count."""
    assert {line["event"] for line in lines} <= {"connections_refused"}
    return [(line["client"], line["count"]) for line in lines]


def test_each_client_is_logged_once_in_ten_seconds():
    now = [100.0]
    refused = RefusedConnections(lambda: now[0])
    with capture_logs() as lines:
        refused.log_due()
        assert lines == []
        for client in ("a", "b", "a"):
            refused.add(client)
        refused.log_due()
        assert counts(lines) == [("a", 2), ("b", 1)]
        refused.add("a")
        now[0] += LOG_EVERY_S - 0.1
        refused.log_due()
        assert len(lines) == 2
        refused.add("a")
        now[0] += 0.1
        refused.log_due()
    assert counts(lines[2:]) == [("a", 2)]


def test_of_many_clients_those_that_were_refused_most_are_logged():
    refused = RefusedConnections()
    for number in range(1000):
        refused.add(str(number))
    refused.add("999")
    with capture_logs() as lines:
        refused.log_due()
    assert len(lines) == MAX_LINES
    assert counts(lines)[0] == ("999", 2)
