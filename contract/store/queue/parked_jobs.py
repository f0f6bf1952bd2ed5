"""Parks the messages of jobs that only a newer release can read, until a worker of it is there.

A parked message is in no queue, so no worker fetches it in vain. Redis errors reach the caller.
"""

from collections.abc import Iterator

import orjson
import redis

from contract import keys
from contract.batches import part_id
from contract.messages import VERSION
from contract.queue_messages import queue_of
from contract.service_clock import CLOCK
from contract.store.connection.readings import Reading
from contract.store.connection.scripts import register

# Messages in one round trip.
_GROUP = 100


class ParkedJobs:
    """The parked messages of all newer releases."""

    def __init__(self, client: redis.Redis, major: int = VERSION.major) -> None:
        """Park what is newer than `major`, and take back the rest."""
        self._client = client
        self._major = major
        self._park, self._unpark = (register(client, name) for name in ("park", "unpark"))

    def park(self, tag: str, major: int, worker: str) -> None:
        """Park a message that `worker` has fetched."""
        self._park(
            keys=[
                *(keys.unacked(worker), keys.unacked_index(worker)),
                *(keys.parked(major), keys.PARKED),
            ],
            args=[tag, major, CLOCK.now()],
        )

    def take_back(self) -> None:
        """Queue the messages that this release can read, the oldest first, with their clients."""
        for major in self._majors():
            if major > self._major:
                continue
            name = keys.parked(major)
            while messages := self._client.zrange(name, 0, _GROUP - 1):
                for message in messages:
                    queue, tag = queue_of(message), _tag(message)
                    part = part_id(tag)
                    self._unpark(
                        keys=[
                            *(name, keys.PARKED, keys.turns(*queue), keys.waiting(*queue)),
                            *(keys.LIVE_JOBS, keys.BATCH_CLIENTS),
                        ],
                        args=[message, major, tag, part.batch_id if part else ""],
                    )

    def parked_before(self, moment: float) -> Iterator[tuple[str, bytes]]:
        """Yield task IDs and messages that have been parked since before the Unix time `moment`."""
        for major in self._majors():
            for message in self._client.zrange(
                keys.parked(major), "-inf", moment, byscore=True, offset=0, num=_GROUP
            ):
                yield _tag(message), message

    def drop(self, message: bytes) -> None:
        """Forget a parked message whose job has ended."""
        for major in self._majors():
            self._client.zrem(keys.parked(major), message)

    def _majors(self) -> list[int]:
        return [int(major) for major in self._client.smembers(keys.PARKED)]


def ask_parked() -> Reading[int]:
    """The number of parked messages."""
    (majors,) = yield [("SMEMBERS", keys.PARKED)]
    counts = yield [("ZCARD", keys.parked(int(major))) for major in majors]
    return sum(counts)


def _tag(message: bytes) -> str:
    properties = orjson.loads(message).get("properties")
    return str(properties.get("delivery_tag", "")) if isinstance(properties, dict) else ""
