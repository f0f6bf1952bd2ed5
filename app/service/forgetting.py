"""Has Redis forget what was deleted, from a thread of the web server."""

import threading
import time
from contextlib import suppress

import redis

from contract.settings import Settings
from contract.store.broker import connect
from contract.store.forgetting import Forgetting

LOOK_EVERY_S = 1.0


def forget_in_background(settings: Settings) -> None:
    """Watch what is deleted, once a second, for the rest of this process."""
    watch = Forgetting(connect(settings), settings.forget_s)

    def run() -> None:
        while True:
            # Requests tell of a Redis that is away, full or read-only.
            with suppress(redis.RedisError):
                watch.run()
            time.sleep(LOOK_EVERY_S)

    threading.Thread(target=run, name="forgetting", daemon=True).start()
