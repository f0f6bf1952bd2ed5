"""Asks Redis how many jobs wait, and how many have ended."""

from contract import keys
from contract.store.admission.outcomes import QueueDepth
from contract.store.connection.readings import Reading


def ask_depth() -> Reading[QueueDepth]:
    """The number and size of accepted jobs that have not ended."""
    jobs, live_bytes = yield [("HLEN", keys.LIVE_JOBS), ("GET", keys.LIVE_BYTES)]
    return QueueDepth(int(jobs), int(live_bytes or 0))


def ask_totals() -> Reading[dict[str, int]]:
    """Counters since the data folder was made."""
    (found,) = yield [("HGETALL", keys.TOTALS)]
    return {name.decode(): int(count) for name, count in found.items()}
