"""Puts clients back in turn whose messages wait although they have no turn.

That is so after somebody has deleted or overwritten a key of the queue. Nobody would fetch these
messages, nor those that the client sends later: it gets its turn with the first message alone.
"""

import time
from collections.abc import Callable

import redis

from contract import keys
from contract.logs import get_logger
from contract.store.connection.scripts import register

log = get_logger(__name__)

LOOK_EVERY_S = 10.0
_JOBS = b"jobs:"


class LostTurns:
    """The clients without a turn in the queue of one model; Redis errors reach the caller."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._put_back = register(client, "put_back_in_turn")
        self._look_at = 0.0

    def put_back(self, fingerprint: str) -> None:
        """Look at the queue of a model, if the last look is a while ago."""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_EVERY_S
        for priority in keys.PRIORITY_STEPS:
            turns = keys.turns(fingerprint, priority)
            with self._client.pipeline(transaction=False) as pipe:
                pipe.hkeys(keys.LIVE_CLIENTS).hvals(keys.BATCH_CLIENTS).lrange(turns, 0, -1)
                counts, of_batches, in_turn = pipe.execute()
            of_jobs = {each.removeprefix(_JOBS) for each in counts if each.startswith(_JOBS)}
            without = sorted({*of_jobs, *of_batches} - set(in_turn))
            waiting = keys.waiting(fingerprint, priority)
            if without and (count := self._put_back(keys=[turns, waiting], args=without)):
                log.warning("clients_put_back_in_turn", clients=count)
