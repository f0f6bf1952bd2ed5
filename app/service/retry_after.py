"""Estimates when a client should try again, from the queued bytes and the workers' speed."""

from app.service.recent_workers import RecentWorkers
from contract.errors import BodyTooLarge, Overloaded
from contract.settings import Settings
from contract.store.admission.outcomes import NoRoom, QueueFull

MIN_RETRY_S, MAX_RETRY_S = 1, 30
# The speed is unknown before the first micro-batch.
UNMEASURED_RETRY_S = 5


class RetryEstimate:
    """The time to score what is queued, at the workers' speed."""

    def __init__(self, workers: RecentWorkers) -> None:
        self._workers = workers

    def retry_after_s(self, queued_bytes: int) -> int:
        """Whole seconds until `queued_bytes` are scored, clamped to 1..30."""
        bytes_per_s = self._bytes_per_s()
        if bytes_per_s is None:
            return UNMEASURED_RETRY_S
        return round(min(max(queued_bytes / bytes_per_s, MIN_RETRY_S), MAX_RETRY_S))

    def queue_full(self, full: QueueFull, settings: Settings) -> Overloaded:
        """The error for a job that the queue, or its client's share of it, has no room for."""
        depth = full.depth
        return Overloaded(
            "You have reached your share of the queue: you would hold more of it than is free. "
            "Send more when some of your jobs have ended."
            if full.is_share
            else "The queue is full; try again after Retry-After seconds.",
            queued_bytes=depth.bytes,
            max_queued_bytes=settings.max_queued_bytes,
            queued_jobs=depth.jobs,
            max_queued_jobs=settings.max_queued_jobs,
            retry_after_s=self.retry_after_s(depth.bytes),
        )

    def no_room(self, full: NoRoom) -> Overloaded | BodyTooLarge:
        """The error for results that Redis has no room for: now, or ever."""
        memory, needed = full.memory, full.needed_bytes
        limit_bytes = memory.capacity_bytes
        if full.is_for_good:
            return BodyTooLarge(
                f"The results could take {needed} bytes of Redis; the limit is {limit_bytes}. "
                "Ask for fewer outputs (top_k, bytes, spans), or send several requests.",
                limit_bytes=limit_bytes,
                actual_bytes=needed,
            )
        if full.is_share:
            message = (
                f"The results could take {needed} bytes. With your stored results "
                f"({full.stored_bytes} bytes) and your waiting jobs ({full.promised_bytes} bytes) "
                "you would hold more of Redis than is free. Erase results that you have read, wait "
                "until they expire or your jobs have ended, or ask for fewer outputs (top_k, "
                "bytes, spans)."
            )
        else:
            message = (
                f"The results could take {needed} bytes, for which Redis has no room. Try again "
                "after Retry-After seconds, ask for fewer outputs (top_k, bytes, spans), or delete "
                "results."
            )
        return Overloaded(
            message,
            needed_bytes=needed,
            promised_bytes=full.promised_bytes,
            **({"stored_bytes": full.stored_bytes} if full.is_share else {}),
            redis_bytes=memory.used_bytes,
            max_redis_bytes=memory.limit_bytes,
            # Without promises only results that expire or are deleted make room.
            retry_after_s=UNMEASURED_RETRY_S if full.promised_bytes else MAX_RETRY_S,
        )

    def _bytes_per_s(self) -> float | None:
        return sum(each.bytes_per_s or 0 for each in self._workers.statuses()) or None
