"""Collects the fields of a request's log line about its job or batch.

An operator who looks into a complaint searches the logs for a task ID, a batch ID, a request ID or
a client.
"""

from typing import Any

from flask import g


def note(**fields: str | int) -> None:
    """Add fields to the log line of this request: an ID, an outcome, a size; never a text."""
    g.audited = {**noted(), **fields}


def noted() -> dict[str, Any]:
    """The fields that this request has noted so far."""
    fields: dict[str, Any] = g.get("audited", {})
    return fields
