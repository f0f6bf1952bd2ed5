"""Receives a file of OpenAI's Files API and stores it piece by piece."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from flask import Request
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from app.requests.body import came_as
from app.requests.clients import client_of
from app.requests.query import refuse_unknown_parameters
from app.requests.upload_request import body_pieces
from app.requests.upload_stream import limited
from app.service.components import Service
from app.service.quotas import current_quota, note_quota_left, quota_exceeded
from app.service.retry_after import MAX_RETRY_S
from contract.api_keys import Quota
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    MalformedBody,
    Overloaded,
    RequestInvalid,
    UnsupportedMediaType,
)
from contract.grammar.invalid import invalid
from contract.messages import owner_of
from contract.store.admission.outcomes import NoRoom, QuotaUsedUp
from contract.store.batches.file_store import StoredFile

MULTIPART = "multipart/form-data"
PURPOSE = "batch"
MAX_NAME_CHARS = 255
_PIECE_BYTES = 256 * 1024
# What surrounds the file in the body, and fields beside it.
FORM_BYTES = 256 * 1024
_FIELDS = ("purpose", "file")


def receive_file(request: Request, service: Service) -> StoredFile:
    """Store the file of a request.

    Raises:
        ClientError, Overloaded, QuotaExceeded, BrokerUnavailable
    """
    refuse_unknown_parameters(request.args, ())
    media_type, parameters = parse_options_header(request.headers.get("Content-Type", ""))
    if media_type.lower() != MULTIPART or not parameters.get("boundary"):
        is_form = media_type.lower() == MULTIPART
        came = "The Content-Type has no boundary" if is_form else came_as(media_type)
        raise UnsupportedMediaType(
            f"{came}; send {MULTIPART}, with curl by -F purpose={PURPOSE} -F file=@FILE."
        )
    form = _Form(parameters["boundary"].encode())
    limit_bytes = service.settings.max_upload_bytes + FORM_BYTES
    pieces = limited(body_pieces(request, service), limit_bytes)
    try:
        # Before the body is read, where it would be refused afterwards.
        service.batches.check_quota(current_quota())
        return _received(form, pieces, request, service)
    except QuotaUsedUp as used_up:
        raise quota_exceeded(used_up) from None


def _received(
    form: "_Form", pieces: Iterator[bytes], request: Request, service: Service
) -> StoredFile:
    client = client_of(request)
    file_id = service.files.new_id(owner_of(client))
    try:
        return _stored(form, pieces, file_id, client, service)
    except BrokerUnavailable:
        # What was received expires.
        raise
    except BaseException:
        with suppress(BrokerUnavailable):
            service.files.delete(file_id)
        raise


def _stored(
    form: "_Form", pieces: Iterator[bytes], file_id: str, client: str, service: Service
) -> StoredFile:
    num_bytes = num_pieces = num_stored = 0
    quota = current_quota()
    for piece in _gathered(form.content(pieces)):
        try:
            num_stored += service.files.add_piece(
                file_id, num_pieces, piece, client=client, quota=quota
            )
        except NoRoom as full:
            raise _no_room(full, num_stored, quota) from None
        num_bytes, num_pieces = num_bytes + len(piece), num_pieces + 1
    if form.purpose != PURPOSE:
        raise invalid(f"must be {PURPOSE}", pointer="/purpose")
    if not num_bytes:
        raise RequestInvalid("The form has no file, or an empty one.", errors=_NO_FILE)
    now, name = service.jobs.now(), form.name[:MAX_NAME_CHARS]
    file = StoredFile(
        *(file_id, name, num_bytes, num_pieces, now, now + service.settings.result_ttl_s)
    )
    note_quota_left(service.files.finish(file, quota))
    return file


_NO_FILE = [{"detail": "is missing or empty", "pointer": "/file"}]


class _Form:
    """Reads a form with one file; what is not the file is small."""

    def __init__(self, boundary: bytes) -> None:
        self._decoder = MultipartDecoder(boundary, max_form_memory_size=None, max_parts=8)
        self.purpose = self.name = ""
        self._field, self._seen = "", set[str]()

    def content(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the content of the file.

        Raises:
            MalformedBody: the body is not a form, or is cut off.
            RequestInvalid: it has a field that is not known.
        """
        num_waiting = 0
        try:
            for piece in chain(pieces, [None]):
                self._decoder.receive_data(piece)
                num_waiting += len(piece or b"")
                while not isinstance(event := self._decoder.next_event(), NeedData):
                    if isinstance(event, Epilogue):
                        return
                    num_waiting = 0
                    yield from self._content_of(event)
                # The decoder holds what it cannot read yet.
                if num_waiting > FORM_BYTES:
                    break
        except ValueError:
            pass
        raise MalformedBody("The form is not valid or is cut off; send multipart/form-data again.")

    def _content_of(self, event: object) -> Iterator[bytes]:
        if isinstance(event, Field | File):
            if event.name not in _FIELDS:
                raise invalid("is not a known field; send purpose and file", pointer="")
            if event.name in self._seen:
                raise invalid("is given twice; send one", pointer=f"/{event.name}")
            self._seen.add(event.name)
            self._field = event.name
            if isinstance(event, File):
                self.name = event.filename
        elif isinstance(event, Data) and self._field == "file":
            yield event.data
        elif isinstance(event, Data) and self._field == "purpose":
            # A longer one is wrong anyway.
            self.purpose = (self.purpose + event.data.decode(errors="replace"))[:MAX_NAME_CHARS]


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces: each is a field in Redis."""
    gathered, num_bytes = list[bytes](), 0
    for piece in pieces:
        gathered.append(piece)
        num_bytes += len(piece)
        if num_bytes >= _PIECE_BYTES:
            yield b"".join(gathered)
            gathered, num_bytes = [], 0
    if num_bytes:
        yield b"".join(gathered)


def _no_room(full: NoRoom, num_stored: int, quota: Quota) -> Overloaded | BodyTooLarge:
    """The error for a file that Redis, or its client's share of it, has no room for: now, or ever.

    Args:
        num_stored: bytes of it that were stored before.
    """
    memory = full.memory
    needed_bytes = num_stored + full.needed_bytes
    # Half of an empty Redis: a client's files may not take more than is left free.
    limit_bytes = int(memory.capacity_bytes * min(quota.queue_share, 1 / 2))
    if 0 < limit_bytes < needed_bytes:
        return BodyTooLarge(
            f"The compressed file takes more than {limit_bytes} bytes of Redis, which is all that "
            "your files may take; send its lines in several files, and delete each in between.",
            limit_bytes=limit_bytes,
        )
    message = "Redis has no room for this file; try again later, or delete files and results."
    # What is promised to the client includes the pieces of this file.
    if full.is_share and full.promised_bytes > num_stored:
        message = (
            "With your other files you would hold more of Redis than is free, or than the share of "
            "your key; delete some, or wait until they expire."
        )
    elif full.is_share:
        message = (
            "This file would take more of Redis than it leaves free; try again later, or send its "
            "lines in several files."
        )
    return Overloaded(
        message,
        needed_bytes=needed_bytes,
        redis_bytes=memory.used_bytes,
        max_redis_bytes=memory.limit_bytes,
        # Only what expires or is deleted makes room.
        retry_after_s=MAX_RETRY_S,
    )
