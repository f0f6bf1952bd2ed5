"""Defines a batch in Redis: its state and counts, its parts, and its result lines.

A part is an ordinary job of several texts. Its task ID is `<batch ID>.<index of its first line>`.
So a worker that fetches it knows where its texts are and where its results go.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson
import zstandard

from contract import keys
from contract.errors import JobCancelled, JobExpired, ServiceError, error_body
from contract.grammar.result_json import dump_result
from contract.messages import (
    REVOKING_CODES,
    Job,
    decode_payload,
    encode_payload,
    error_from_body,
)
from contract.versions import Unreadable

BatchStatus = Literal[
    "validating", "in_progress", "cancelling", "completed", "expired", "cancelled"
]

LINE_WORK_BYTES = 64
"""Bytes of work of a line with a shorter text, or without one: what a micro-batch of 16 KiB and 256
texts, the default limits, has for each text. A waiting line takes 44 bytes of Redis, too."""

REFUSED = "refused"
"""The field of a part's request that holds the error of a line that cannot be scored."""

# The fastest level halves the size of text. Higher levels gain little and cost the worker's time.
_LEVEL = 1
_PIECE_BYTES = 64 * 1024
_SEPARATOR = "."


class PartId(NamedTuple):
    """The batch and the place in it that the task ID of a part names."""

    batch_id: str
    first: int
    """Index of the part's first line, from 0, without blank lines."""

    def __str__(self) -> str:
        return f"{self.batch_id}{_SEPARATOR}{self.first}"


def part_id(task_id: str) -> PartId | None:
    """The reverse of `str(PartId)`; None for the ID of any other job."""
    batch_id, separator, first = task_id.partition(_SEPARATOR)
    return PartId(batch_id, int(first)) if separator and first.isdecimal() else None


class Part(NamedTuple):
    """Consecutive lines of a batch that are one job."""

    first: int
    num_lines: int
    num_bytes: int
    """Bytes of work: what the model reads, and at least `LINE_WORK_BYTES` for each line."""
    promised_bytes: int = 0
    """Room in Redis that is promised to its results; `conclude_parts.lua` reads it, too."""

    def encode(self) -> bytes:
        """The part as a member of the sorted set of parts."""
        return b"%d:%d:%d:%d" % self


def decode_part(member: bytes) -> Part:
    """The reverse of `Part.encode`; what a later release appends is dropped."""
    return Part(*map(int, member.split(b":")[:4]))


def ended_part(message: bytes) -> Part | None:
    """The part whose end a message on the channel of its batch tells; None for other changes.

    Workers of earlier releases do not name the part.
    """
    try:
        return decode_part(message) if message else None
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Batch:
    """The state of a batch; times are Unix times in seconds."""

    id: str
    total: int
    num_bytes: int
    """Bytes that the model reads for it."""
    num_parts: int
    created_at: float
    deadline_at: float
    completed: int = 0
    failed: int = 0
    """Lines that ended without a score."""
    num_published: int = 0
    """Parts that were put into the queue."""
    in_progress_at: float | None = None
    cancelling_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    has_expired_lines: bool = False
    model: dict[str, Any] | None = None
    client: str = ""
    """Who uploaded it."""
    fingerprint: str = keys.UNBOUND
    """Of the model that scores it."""
    model_name: str = ""
    """Of the model that scores it; '' for whichever is ready first."""
    is_pinned: bool = False
    """Whether the upload named the fingerprint, so that no other model may score it."""

    @property
    def status(self) -> BatchStatus:
        """Its name in OpenAI's terms."""
        if self.ended_at is None:
            if self.cancelling_at is not None:
                return "cancelling"
            return "in_progress" if self.num_published == self.num_parts else "validating"
        if self.cancelling_at is not None:
            return "cancelled"
        return "expired" if self.has_expired_lines else "completed"

    @property
    def is_final(self) -> bool:
        """Whether every line has its result."""
        return self.ended_at is not None

    @property
    def progress(self) -> tuple[str, int, int]:
        """Differs whenever a reader who waits for changes has something new to read."""
        return self.status, self.completed, self.failed


def decode_batch(batch_id: str, found: Mapping[bytes, bytes]) -> Batch:
    """Read the hash of a batch, which is not empty."""
    facts = {name.decode(): value for name, value in found.items()}

    def moment(name: str) -> float | None:
        return float(facts[name]) if name in facts else None

    return Batch(
        id=batch_id,
        total=int(facts["total"]),
        completed=int(facts.get("completed", 0)),
        failed=int(facts.get("failed", 0)),
        num_bytes=int(facts["num_bytes"]),
        num_parts=int(facts["num_parts"]),
        num_published=int(facts["num_published"]),
        created_at=float(facts["created_at"]),
        deadline_at=float(facts["deadline_at"]),
        in_progress_at=moment("in_progress_at"),
        cancelling_at=moment("cancelling_at"),
        ended_at=moment("ended_at"),
        expires_at=moment("expires_at"),
        has_expired_lines="has_expired_lines" in facts,
        model=orjson.loads(facts["model"]) if "model" in facts else None,
        client=facts.get("client", b"").decode(),
        fingerprint=facts.get("fingerprint", keys.UNBOUND.encode()).decode(),
        model_name=facts.get("model_name", b"").decode(),
        is_pinned=facts.get("is_pinned") == b"1",
    )


def encode_part_payload(job: Job) -> bytes:
    """A part's job as Redis stores it, compressed: bulk text is what fills the memory of Redis."""
    return zstandard.compress(encode_payload(job), _LEVEL)


def decode_part_payload(payload: bytes) -> Job:
    """The reverse of `encode_part_payload`. Raises: Unreadable, NewerFormat."""
    try:
        job = zstandard.decompress(payload)
    except zstandard.ZstdError:
        raise Unreadable("not_compressed", "It is not compressed with zstd.") from None
    return decode_payload(job)


@dataclass(frozen=True, slots=True)
class PartResults:
    """What a part adds to its batch when it ends."""

    part: PartId
    lines: bytes
    """One JSON result line per line of the upload, compressed."""
    completed: int
    failed: int
    num_bytes: int
    """Bytes of work of the part, by which the load falls."""
    is_expired: bool = False
    model: bytes = b""
    """The model as JSON; empty if nothing was scored."""


def part_results(
    part: PartId,
    requests: Sequence[Mapping[str, Any]],
    outcomes: Iterable[Mapping[str, Any] | ServiceError],
    num_bytes: int,
    model: Mapping[str, Any] | None = None,
) -> PartResults:
    """The result lines of a part, one per request.

    An error in them has the form in which it travels through Redis; the web tier makes a problem
    object of it.
    """
    lines, num_failed, is_expired = [], 0, False
    for index, (fields, outcome) in enumerate(zip(requests, outcomes, strict=True), part.first):
        line: dict[str, Any] = {"index": index, "status": "SUCCESS"}
        if "custom_id" in fields:
            line["custom_id"] = fields["custom_id"]
        if isinstance(outcome, ServiceError):
            num_failed += 1
            is_expired |= outcome.code == JobExpired.code
            line["status"] = "REVOKED" if outcome.code in REVOKING_CODES else "FAILURE"
            line["error"] = error_body(outcome)
        else:
            line["result"] = outcome
        lines.append(dump_result(line, orjson.OPT_APPEND_NEWLINE))
    return PartResults(
        part=part,
        lines=zstandard.compress(b"".join(lines), _LEVEL),
        completed=len(lines) - num_failed,
        failed=num_failed,
        num_bytes=num_bytes,
        is_expired=is_expired,
        model=orjson.dumps(model) if model else b"",
    )


def batch_cancelled() -> JobCancelled:
    """The error of the lines of a batch that its client cancelled."""
    return JobCancelled("The batch was cancelled before this line was scored.")


def failed_part_results(
    part: PartId, requests: Sequence[Mapping[str, Any]], error: ServiceError, num_bytes: int
) -> PartResults:
    """The result lines of a part that fails as a whole; refused lines keep their own error."""
    outcomes = (
        error_from_body(fields[REFUSED]) if REFUSED in fields else error for fields in requests
    )
    return part_results(part, requests, outcomes, num_bytes)


def pieces_of_lines(lines: bytes) -> Iterator[bytes]:
    """The text of `PartResults.lines` in pieces of up to 64 KiB, however large it is."""
    with zstandard.ZstdDecompressor().stream_reader(lines) as reader:
        while piece := reader.read(_PIECE_BYTES):
            yield piece


def is_success_line(line: bytes) -> bool:
    """Whether a result line is that of a scored text; all others hold an error."""
    return line.split(b",", 2)[1].startswith(b'"status":"SUCCESS"')
