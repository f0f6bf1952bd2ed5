"""Unix time by the clock of Redis, which all processes of the service share.

The clocks of two machines may differ, and one may be set while a process runs. A deadline that one
process sets and another one checks must not depend on that.
"""

import time
from collections.abc import Sequence

import redis

from contract.logs import get_logger

log = get_logger(__name__)

# The clock is behind Redis by the time that an answer took, at most.
_MAX_ANSWER_S = 1.0
# An answer of Redis that is no older proves that a moment has passed.
_PROOF_MAX_AGE_S = 0.1
# A clock of this machine that differs by more makes its logs hard to compare with others.
_MAX_DIFFERENCE_S = 5.0


def steady() -> float:
    """Seconds by a clock that nobody sets; on Linux it goes on while the machine is suspended."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class ServiceClock:
    """The last time that Redis gave, and what has passed since then by `steady`."""

    def __init__(self) -> None:
        self._noted: tuple[float, float] | None = None
        """What Redis said in Unix seconds, and the steady time when the answer was there."""
        self._differs = False
        """Whether the clock of this machine differed from that of Redis at the last answer."""

    @property
    def is_known(self) -> bool:
        """Whether Redis has answered once."""
        return self._noted is not None

    def now(self) -> float:
        """Unix time in seconds; by the clock of this machine until Redis has answered once.

        It may be behind Redis by the time that the answer took, and is never ahead.
        """
        if self._noted is None:
            return time.time()
        redis_s, noted_at = self._noted
        return redis_s + steady() - noted_at

    def note(self, answer: Sequence[int | bytes], asked_at: float) -> None:
        """Take an answer to TIME as soon as it is there; a late one is of no use after the first.

        Args:
            answer: seconds and microseconds.
            asked_at: when it was asked, by `steady`.
        """
        noted_at = steady()
        if self._noted is None or noted_at - asked_at < _MAX_ANSWER_S:
            self._noted = _seconds(answer), noted_at
            self._log_difference()

    def ask(self, client: redis.Redis) -> float:
        """Ask Redis for its time, in Unix seconds. Redis errors reach the caller."""
        asked_at = steady()
        answer = client.time()
        self.note(answer, asked_at)
        return _seconds(answer)

    def has_passed(self, moment: float, client: redis.Redis) -> bool:
        """Whether a moment in Unix seconds has passed; only Redis can prove that it has.

        Raises:
            redis.RedisError: it seems to have passed, and Redis does not answer.
        """
        if self.now() <= moment:
            return False
        if self._noted is not None and steady() < self._noted[1] + _PROOF_MAX_AGE_S:
            return True
        return self.ask(client) > moment

    def _log_difference(self) -> None:
        ahead_s = time.time() - self.now()
        differs = abs(ahead_s) > _MAX_DIFFERENCE_S
        if differs and not self._differs:
            check = "the clocks of this machine and of Redis; logs have the time of their machine"
            log.warning("clocks_differ", ahead_s=round(ahead_s, 1), check=check)
        self._differs = differs


def _seconds(answer: Sequence[int | bytes]) -> float:
    seconds, microseconds = map(int, answer)
    return seconds + microseconds / 1e6


CLOCK = ServiceClock()
"""Of this process, which has one Redis."""
