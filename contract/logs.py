"""Configures logging: one JSON line per event, never with a text that was sent for scoring."""

import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from functools import partial

# The original: gevent later replaces `select.poll`, by one that cannot wait wherever we log.
from select import POLLOUT, poll
from typing import Any

import orjson
import structlog

# The reader of the log may take this long for a line. One that is only busy loses none.
PATIENCE_S = 2.0
# After a line was lost, no other one waits for the reader for this long, nor until it goes on.
IMPATIENT_S = 10.0
# A pipe with any room takes this much at once.
_PIECE_BYTES = 4096


def configure_logging(
    level: str,
    process: str,
    on_line: Callable[[str], None] | None = None,
    *,
    request_id_of: Callable[[Any], str] | None = None,
) -> None:
    """Send all logs of this process, those of libraries too, to stderr as JSON lines.

    Args:
        level: the lowest level that is written.
        process: `web`, `worker` or `supervisor`; every line names it.
        on_line: takes the lines instead of stderr.
        request_id_of: finds the HTTP request that a line without `request_id` belongs to, by the
            line's `task_id`, which may be None; '' for none.
    """
    write = _Output(sys.stderr.fileno()).write if on_line is None else _handing_to(on_line)
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _naming(process),
    ]
    if request_id_of is not None:
        shared.append(_naming_request(request_id_of))
    # Our own events do not pass through `logging`, which would take most of the time of a line.
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_line)],
        logger_factory=partial(_Writer, write),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(on_line or (lambda line: write(line.encode() + b"\n")))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def get_logger(name: str) -> Any:
    """A logger whose calls are `log.info("event_in_snake_case", size_bytes=..., time_ms=...)`."""
    return structlog.get_logger(name)


class _Writer:
    """Writes the lines of our own events."""

    def __init__(self, write: Callable[[bytes], None], name: str) -> None:
        self.name = name
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = write


class _Output:
    """Writes lines to a descriptor. Where a line cannot be written, work goes on without it.

    A pipe whose reader has stopped would block each process that logs: the web server, the workers
    and the supervisor. So a line that finds no room is left out, and a later one tells how many.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._num_lost = 0
        self._is_cut = False
        """Whether the last line was written in part only."""
        self._patient_from = 0.0
        """Monotonic time, seconds."""

    def write(self, line: bytes) -> None:
        """Write `line` in one call, so that it stays whole, unless it is a long one."""
        with suppress(OSError):
            if not self._has_room():
                self._num_lost += 1
                return
            if self._num_lost:
                line, self._num_lost = self._lost() + line, 0
            for start in range(0, len(line), _PIECE_BYTES):
                if start and not self._has_room():
                    self._num_lost, self._is_cut = 1, True
                    return
                os.write(self._descriptor, line[start : start + _PIECE_BYTES])

    def _has_room(self) -> bool:
        output = poll()
        output.register(self._descriptor, POLLOUT)
        if output.poll(0):
            return True
        if self._num_lost or time.monotonic() < self._patient_from:
            return False
        has_room = bool(output.poll(PATIENCE_S * 1000))
        if not has_room:
            self._patient_from = time.monotonic() + IMPATIENT_S
        return has_room

    def _lost(self) -> bytes:
        """The line that tells how many were lost."""
        event = {
            "lines": self._num_lost,
            "event": "log_lines_lost",
            "level": "warning",
            "logger": __name__,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        end, self._is_cut = b"\n" if self._is_cut else b"", False
        return end + _line(event)


def _handing_to(on_line: Callable[[str], None]) -> Callable[[bytes], None]:
    return lambda line: on_line(line.decode().rstrip())


class _Handler(logging.Handler):
    """Hands on the lines of libraries."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        super().__init__()
        self._on_line = on_line

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on the line of `record`."""
        try:
            self._on_line(self.format(record))
        except Exception:  # noqa: BLE001 - as each handler of `logging` does
            self.handleError(record)


def _naming(process: str) -> Any:
    def add_process(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return add_process


def _naming_request(request_id_of: Callable[[Any], str]) -> Any:
    def add_request(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if "request_id" not in event and (found := request_id_of(event.get("task_id"))):
            event["request_id"] = found
        return event

    return add_request


def _line(event: Any, default: Any = None, **_: Any) -> bytes:
    return orjson.dumps(event, default=default, option=orjson.OPT_APPEND_NEWLINE)


def _dumps(event: Any, default: Any = None, **_: Any) -> str:
    return _line(event, default).decode().rstrip()
