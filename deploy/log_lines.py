"""Turns the JSON log lines of web server and worker into short lines for a person."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from contract.grammar.counts import counted
from deploy.terminal import styled

# Load balancers, containers and `make run` itself ask for these all the time.
POLLED = ("/healthz", "/readyz")
_OF_POLLS = (200, 503)
# As wide as the longest route, so that the columns of all lines are one below the other.
_METHOD_WIDTH, ROUTE_WIDTH = 6, 29
# Of these libraries only warnings and errors concern an operator.
_LIBRARIES = ("gunicorn", "celery", "kombu", "httpx")
# Other lines say the same: the request, the micro-batch, the block with the URLs.
_IN_OTHER_LINES = (
    "startup_phase",
    "model_loaded",
    "worker_ready",
    "worker_stopped",
    "celery_message",
    "job_opened",
)
_LEVEL_COLOURS = {"warning": "yellow", "error": "red", "critical": "red"}
_COMMON_FIELDS = ("event", "level", "logger", "timestamp", "process", "request_id")
# `23:M 27 Nov 2026 08:34:42.408 # message`; a signal handler writes no date.
_REDIS_LINE = re.compile(r"\d+:(?:\w \d\d \w{3} \d{4} [\d:.]+ \S|signal-handler \(\d+\)) (.*)")
# Valkey cannot turn these off. The first concerns snapshots by fork, and no job is lost for lack
# of one: each write is in the append-only file. The others follow from a stop that was asked for.
_HARMLESS = ("Memory overcommit", "Received SIG", "ready to exit", "User requested shutdown")


def event_of(line: str) -> dict[str, Any] | None:
    """The event that a log line holds; None for another line."""
    if not line.startswith("{"):
        return None
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def redis_message(line: str) -> str | None:
    """What the Redis server says in a line; None if it is of no use to an operator."""
    match = _REDIS_LINE.fullmatch(line)
    message = match[1] if match else line
    if not message.strip() or any(words in message for words in _HARMLESS):
        return None
    return message


def readable(event: Mapping[str, Any]) -> str | None:
    """The line for an event, in colour; None if it is left out."""
    level = event.get("level", "info")
    if event["event"] == "request_served":
        shown = _request(event)
    elif event["event"] == "micro_batch_scored":
        shown = _micro_batch(event)
    elif event["event"] == "job_ended":
        shown = _job_ended(event)
    elif level in ("debug", "info") and _is_left_out(event):
        shown = None
    else:
        shown = _other(event, level)
    return None if shown is None else f"{styled(_time(event), dim=True)}  {shown}"


def _is_left_out(event: Mapping[str, Any]) -> bool:
    logger = str(event.get("logger", ""))
    return event["event"] in _IN_OTHER_LINES or logger.startswith(_LIBRARIES)


def _request(event: Mapping[str, Any]) -> str | None:
    """Method, route, status and time; a refusal with its name."""
    status, route = event["status"], event["route"] or "(no such route)"
    if (route in POLLED and status in _OF_POLLS) or status == 304:
        return None
    colour = "green" if status < 400 else "yellow" if status < 500 else "red"
    refusal = styled(f"  {event.get('outcome', '')}", fg=colour) if status >= 400 else ""
    method = _printable(event["method"])
    return (
        f"{method:<{_METHOD_WIDTH}} {route:<{ROUTE_WIDTH}} {styled(str(status), fg=colour)}"
        f"  {_ms(event['time_ms'])}{_work(event)}{refusal}"
    )


def _work(event: Mapping[str, Any]) -> str:
    num_bytes = event.get("work_bytes")
    return "" if num_bytes is None else f"  {counted(num_bytes, 'byte', ',')}"


def _micro_batch(event: Mapping[str, Any]) -> str:
    texts, num_bytes = counted(event["slices"], "text", ","), counted(event["bytes"], "byte", ",")
    name = styled(f"{'micro-batch':<{_METHOD_WIDTH + 1 + ROUTE_WIDTH}}", fg="cyan")
    return f"{name} {texts}  {_ms(event['compute_ms'])}  {num_bytes}"


def _job_ended(event: Mapping[str, Any]) -> str | None:
    """Only a job that failed has a line; the others show in their request and micro-batch."""
    if event["state"] != "FAILURE":
        return None
    return styled(f"job failed  {event['task_id']}", fg="yellow")


def _other(event: Mapping[str, Any], level: str) -> str:
    fields = "  ".join(
        f"{name}={_printable(value)}"
        for name, value in event.items()
        if name not in _COMMON_FIELDS and value is not None
    )
    colour = _LEVEL_COLOURS.get(level)
    name = _printable(event["event"])
    name = styled(name, fg=colour) if colour else name
    return f"{event.get('process', '')}: {name}  {fields}".rstrip()


def _printable(value: Any) -> str:
    """The value without what a terminal would obey; a library may repeat what came to it."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value))


def _ms(time_ms: float) -> str:
    return f"{time_ms:,.0f} ms" if time_ms >= 10 else f"{time_ms:.1f} ms"


def _time(event: Mapping[str, Any]) -> str:
    """The time of the event in the time zone of this machine."""
    try:
        at = datetime.fromisoformat(event["timestamp"])
    except (KeyError, TypeError, ValueError):
        return "--:--:--"
    return f"{at.astimezone():%H:%M:%S}"
