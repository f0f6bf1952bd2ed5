"""Configures logging: one JSON line per event, never with a text that was sent for scoring."""

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
import structlog


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
    write = _writing_to(sys.stderr.fileno()) if on_line is None else _handing_to(on_line)
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
    handler = logging.StreamHandler(sys.stderr) if on_line is None else _Handler(on_line)
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


def _writing_to(descriptor: int) -> Callable[[bytes], None]:
    """One call for each line, so that lines stay whole."""

    def write(line: bytes) -> None:
        # Where a line cannot be written, work goes on without it.
        with suppress(OSError):
            os.write(descriptor, line)

    return write


def _handing_to(on_line: Callable[[str], None]) -> Callable[[bytes], None]:
    return lambda line: on_line(line.decode().rstrip())


class _Handler(logging.Handler):
    """Hands on the lines of libraries."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        super().__init__()
        self._on_line = on_line

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on the line of `record`."""
        self._on_line(self.format(record))


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
