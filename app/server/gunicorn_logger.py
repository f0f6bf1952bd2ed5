"""Writes Gunicorn's own log lines as JSON, and none that could quote a client."""

import logging
import sys
from typing import Any

from gunicorn.glogging import Logger

from contract.errors import ServiceError


class EdgeLogger(Logger):
    """Gunicorn's own log lines, sent through the root logger, which writes JSON.

    Those of the level DEBUG are left out: they have the path of each request, which may be a text.
    """

    def setup(self, cfg: Any) -> None:
        """Configure logging as Gunicorn does, and let the root logger write its lines."""
        super().setup(cfg)
        self.error_log.propagate = True
        self.error_log.setLevel(max(self.error_log.level, logging.INFO))

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log an unexpected error with its traceback, and an expected one in one line.

        An expected error comes here if the answer had begun, for example while Redis goes away. The
        client sees the connection end before the answer does.
        """
        error = sys.exc_info()[1]
        if isinstance(error, ServiceError):
            self.warning(f"{msg}: {type(error).__name__}", *args)
        else:
            super().exception(msg, *args, **kwargs)
