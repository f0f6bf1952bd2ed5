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
from contract.errors import BrokerUnavailable, MalformedBody, RequestInvalid, UnsupportedMediaType
from contract.grammar.invalid import invalid
from contract.messages import owner_of
from contract.store.admission.outcomes import NoRoom
from contract.store.batches.file_store import StoredFile

MULTIPART = "multipart/form-data"
PURPOSE = "batch"
MAX_NAME_CHARS = 255
_PIECE_BYTES = 256 * 1024
# What surrounds the file in the body, and fields beside it.
_FORM_BYTES = 256 * 1024
_FIELDS = ("purpose", "file")


def receive_file(request: Request, service: Service) -> StoredFile:
    """Store the file of a request.

    Raises:
        ClientError, Overloaded, BrokerUnavailable
    """
    refuse_unknown_parameters(request.args, ())
    media_type, parameters = parse_options_header(request.headers.get("Content-Type", ""))
    if media_type.lower() != MULTIPART or not parameters.get("boundary"):
        is_form = media_type.lower() == MULTIPART
        came = "The Content-Type has no boundary" if is_form else came_as(media_type)
        raise UnsupportedMediaType(
            f"{came}; send {MULTIPART}, with curl by -F purpose={PURPOSE} -F file=@FILE."
        )
    store, limit_bytes = service.files, service.settings.max_upload_bytes
    file_id = store.new_id(owner_of(client_of(request)))
    form = _Form(parameters["boundary"].encode())
    pieces = limited(body_pieces(request, service), limit_bytes + _FORM_BYTES)
    try:
        return _stored(form, pieces, file_id, service)
    except BrokerUnavailable:
        # What was received expires.
        raise
    except BaseException:
        with suppress(BrokerUnavailable):
            store.delete(file_id)
        raise


def _stored(form: "_Form", pieces: Iterator[bytes], file_id: str, service: Service) -> StoredFile:
    num_bytes = num_pieces = num_stored = 0
    for piece in _gathered(form.content(pieces)):
        num_stored += service.files.add_piece(file_id, num_pieces, piece)
        num_bytes, num_pieces = num_bytes + len(piece), num_pieces + 1
        _check_room(service, num_stored)
    if form.purpose != PURPOSE:
        raise invalid(f"must be {PURPOSE}", pointer="/purpose")
    if not num_bytes:
        raise RequestInvalid("The form has no file, or an empty one.", errors=_NO_FILE)
    return service.files.finish(file_id, form.name[:MAX_NAME_CHARS], num_bytes, num_pieces)


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
                if num_waiting > _FORM_BYTES:
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


def _check_room(service: Service, num_stored: int) -> None:
    load = service.batches.load()
    # Pieces that are stored count as used already.
    if load.promised_bytes > load.memory.room_bytes:
        raise service.retry.no_room(NoRoom(num_stored, load.promised_bytes, load.memory))
