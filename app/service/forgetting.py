"""Has Redis forget what was deleted, from a thread of the web server."""

import threading
import time

from contract.logs import get_logger
from contract.settings import Settings
from contract.store.connection.broker import connect
from contract.store.forgetting import Forgetting

log = get_logger(__name__)

_MIN_PAUSE_S, _MAX_PAUSE_S = 0.1, 60.0
# Of the time within which Redis must forget; a rewrite has the last quarter of it.
_PAUSE_SHARE = 0.01


def forget_in_background(settings: Settings) -> None:
    """Watch what is deleted for the rest of this process."""
    watch = Forgetting(connect(settings), settings.forget_s)
    pause_s = pause_between_looks_s(settings.forget_s)
    failed: set[str] = set()

    def run() -> None:
        while True:
            look(watch, failed)
            time.sleep(pause_s)

    threading.Thread(target=run, name="forgetting", daemon=True).start()


def pause_between_looks_s(forget_s: float) -> float:
    """How long to wait until Redis is looked at again, in seconds."""
    return min(max(forget_s * _PAUSE_SHARE, _MIN_PAUSE_S), _MAX_PAUSE_S)


def look(watch: Forgetting, failed: set[str]) -> None:
    """Look once; whatever goes wrong, the next look tries again.

    Args:
        failed: the kinds of errors since the last look that succeeded; each is logged once.
    """
    try:
        watch.run()
    except Exception as error:  # noqa: BLE001 - without this thread nothing would be forgotten
        kind = type(error).__name__
        if kind not in failed:
            log.error("forgetting_failed", error=kind)
        failed.add(kind)
    else:
        failed.clear()
