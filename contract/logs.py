"""Configures logging: one JSON line per event, never with a text that was sent for scoring."""

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

import orjson
import structlog


def configure_logging(level: str, process: str) -> None:
    """Send all logs of this process, those of libraries too, to stderr as JSON lines.

    Args:
        level: the lowest level that is written.
        process: `web` or `worker`; every line names it.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _naming(process),
    ]
    # Our own events do not pass through `logging`, which would take most of the time of a line.
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_line)],
        logger_factory=_writers_to(sys.stderr.fileno()),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
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
    """Writes lines to a file descriptor: one call for each line, so that lines stay whole."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor

    def msg(self, line: bytes) -> None:
        """Write a line. Where it cannot be written, work goes on without it."""
        with suppress(OSError):
            os.write(self._descriptor, line)

    debug = info = warning = error = critical = msg


def _writers_to(descriptor: int) -> Callable[[str], _Writer]:
    return lambda name: _Writer(descriptor, name)


def _naming(process: str) -> Any:
    def add_process(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return add_process


def _line(event: Any, default: Any = None, **_: Any) -> bytes:
    return orjson.dumps(event, default=default, option=orjson.OPT_APPEND_NEWLINE)


def _dumps(event: Any, default: Any = None, **_: Any) -> str:
    return _line(event, default).decode().rstrip()
