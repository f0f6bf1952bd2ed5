"""Decides how long a worker waits for further texts before it begins a micro-batch.

Clients that wait for results send their next texts when a micro-batch ends. If the worker began at
once, it would score only the texts that are queued already, those of the other half of the clients.
Then each micro-batch would be half as large as possible. (Delayed batching: Crankshaw et al.,
"Clipper", NSDI 2017, section 4.3.)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from worker.scheduling.filling import Budget

# A wait is at most this share of the time of the last micro-batch.
MAX_SHARE = 1 / 4
MAX_DELAY_S = 0.025
# Once a text has come back, the wait ends if no other one follows for this long.
SILENCE_S = 0.004
# With a backlog of so many bytes, further texts hardly make the model faster per byte.
ENOUGH_BYTES = 1024
# How often the worker looks for further texts while it waits.
LOOK_EVERY_S = 0.002
# Earlier than any job was submitted, so that no job is too old.
ANY_TIME = -1.0
# At most so many waits are skipped after a useless one.
MAX_SKIPPED = 31


@dataclass(slots=True)
class _Fetched:
    """Jobs that were fetched since the last micro-batch ended."""

    jobs: int = 0
    bytes: int = 0
    """What the model reads for them."""


class BatchingDelay:
    """The wait before the next micro-batch, and whether such waits were worth it lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a wait."""
        self._clock = clock
        self._num_expected = 0
        self._backlog, self._returned = _Fetched(), _Fetched()
        """Jobs that were submitted before the last micro-batch ended, and after it."""
        self._ended_at = 0.0
        """Unix time at which the last micro-batch ended, seconds."""
        self._until = self._last_return_at = 0.0
        """By the clock: when the longest wait ends, and when the last job came back."""
        self._has_waited = False
        self._num_to_skip = self._num_skipped_last = 0

    @property
    def num_jobs(self) -> int:
        """Jobs that were fetched since the last micro-batch ended."""
        return self._backlog.jobs + self._returned.jobs

    @property
    def num_bytes(self) -> int:
        """What the model reads for these jobs."""
        return self._backlog.bytes + self._returned.bytes

    @property
    def num_expected(self) -> int:
        """Jobs that the worker waits for; 0 if it does not wait."""
        return self._num_expected

    @property
    def opens_after(self) -> float | None:
        """A text that comes alone begins at once if it was submitted after this Unix time.

        None if such a text may have to wait as well.
        """
        if self._num_expected > 1:
            return None
        return self._ended_at if self._num_expected else ANY_TIME

    def begin(self, num_ended: int, ended_at: float, elapsed_s: float) -> None:
        """Note that a micro-batch has ended.

        Args:
            num_ended: jobs whose results clients have now; they may send as many again.
            ended_at: Unix time, seconds, by the clock of the `submitted_at` of `add`.
            elapsed_s: how long the micro-batch took.
        """
        self._backlog, self._returned = _Fetched(), _Fetched()
        self._ended_at = ended_at
        self._until = self._clock() + min(elapsed_s * MAX_SHARE, MAX_DELAY_S)
        self._has_waited = False
        is_skipped = self._num_to_skip > 0 and num_ended > 0
        self._num_to_skip -= is_skipped
        self._num_expected = 0 if is_skipped else num_ended

    def add(self, num_bytes: int, submitted_at: float) -> None:
        """Note a text that was fetched; `submitted_at` is Unix time in seconds."""
        has_returned = submitted_at > self._ended_at
        fetched = self._returned if has_returned else self._backlog
        fetched.jobs += 1
        fetched.bytes += num_bytes
        if has_returned:
            self._last_return_at = self._clock()

    def left_s(self, budget: Budget) -> float:
        """How long to wait yet, with at least one job fetched; 0 to begin the micro-batch.

        Args:
            budget: limits of the micro-batch.
        """
        if not self._num_expected:
            return 0.0
        is_full = self.num_jobs >= budget.slices or self.num_bytes >= budget.bytes
        have_all_returned = self._returned.jobs >= self._num_expected
        until = self._until
        if self._returned.jobs:
            until = min(until, self._last_return_at + SILENCE_S)
        left_s = until - self._clock()
        is_enough = is_full or have_all_returned or self._backlog.bytes >= ENOUGH_BYTES
        if left_s > 0 and not is_enough:
            self._has_waited = True
            return left_s
        if self._has_waited:
            self._learn(is_worth_it=is_full or 2 * self._returned.jobs >= self._num_expected)
        self._num_expected = 0
        return 0.0

    def _learn(self, *, is_worth_it: bool) -> None:
        """After each useless wait in a row, skip 1, 3, 7, 15, then 31; a useful one ends that."""
        more = min(2 * self._num_skipped_last + 1, MAX_SKIPPED)
        self._num_to_skip = self._num_skipped_last = 0 if is_worth_it else more
