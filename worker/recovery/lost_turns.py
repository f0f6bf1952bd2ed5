"""Gives clients their turns back that have waiting messages and no turn.

A client loses its turn when somebody deletes or overwrites a key of the queue. It gets a turn only
with its first waiting message. So no worker would fetch its messages, nor those it sends later.
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
        self._next_look_at = 0.0

    def put_back(self, fingerprint: str) -> None:
        """Put the clients of one model's queue back in turn, at most once in `LOOK_EVERY_S`."""
        if self._clock() < self._next_look_at:
            return
        self._next_look_at = self._clock() + LOOK_EVERY_S
        turns = {priority: keys.turns(fingerprint, priority) for priority in keys.PRIORITY_STEPS}
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hkeys(keys.LIVE_CLIENTS).hvals(keys.BATCH_CLIENTS)
            for name in turns.values():
                pipe.lrange(name, 0, -1)
            counts, of_batches, *in_turns = pipe.execute()
        of_jobs = {each.removeprefix(_JOBS) for each in counts if each.startswith(_JOBS)}
        for (priority, name), in_turn in zip(turns.items(), in_turns, strict=True):
            without = sorted({*of_jobs, *of_batches} - set(in_turn))
            waiting = keys.waiting(fingerprint, priority)
            if without and (count := self._put_back(keys=[name, waiting], args=without)):
                log.warning("clients_put_back_in_turn", clients=count)
