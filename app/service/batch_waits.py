"""Waits for changes of a batch, and for its next results."""

from app.service.callers import Caller
from app.service.components import Service
from contract import keys
from contract.batches import Batch, Part, ended_part

# Compressed, as the results lie in Redis; a page is in memory until it is sent.
MAX_PAGE_BYTES = 1024**2


def read_when_changed(service: Service, batch_id: str, wait_s: float, caller: Caller) -> Batch:
    """The batch once its state or counts change, or as it is after `wait_s` seconds.

    Raises:
        JobNotFound, JobGone, BrokerUnavailable
    """
    known = service.batches.read(batch_id)
    return service.changes.wait_for(
        keys.batch(batch_id),
        known,
        read=lambda _message: service.batches.read(batch_id),
        is_changed=lambda found: found.is_final or found.progress != known.progress,
        timeout_s=wait_s,
        caller=caller,
    )


def read_results(
    service: Service, batch: Batch, *, after: int, limit: int, wait_s: float, caller: Caller
) -> list[tuple[Part, bytes | None]]:
    """The parts with the lines from `after` on, once there is one, or none after `wait_s` seconds.

    Raises:
        JobGone: the batch was erased meanwhile.
        BrokerUnavailable
    """

    line = min(after, batch.total - 1)

    def concerns(message: bytes) -> bool:
        part = ended_part(message)
        return part is None or part.first <= line < part.first + part.num_lines

    def read() -> list[tuple[Part, bytes | None]]:
        return service.batches.results(batch.id, after, limit, MAX_PAGE_BYTES)

    def read_of_living() -> list[tuple[Part, bytes | None]]:
        service.batches.read(batch.id)
        return read()

    parts = read()
    if parts or batch.is_final:
        return parts
    return service.changes.wait_for(
        keys.batch(batch.id),
        parts,
        read=lambda _message: read_of_living(),
        is_changed=bool,
        concerns=concerns,
        timeout_s=wait_s,
        caller=caller,
    )
