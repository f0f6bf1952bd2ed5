"""Makes the HTTP answers that tell the state of a batch, and streams pages of its results."""

from collections.abc import Iterator, Sequence

from flask import Request, Response

from app.requests.page_query import Page
from app.requests.upload_request import NDJSON
from app.responses.answer_memory import STREAM_BYTES, hold
from app.responses.compression import choose, encoded, note_encoding
from app.responses.json import json_response
from app.responses.views import batch_path, batch_view, result_lines
from app.service.components import Service
from app.service.turns import in_turns
from contract.batches import Batch, Part, pieces_of_lines
from contract.store.batches.sealing import Accepted

Parts = Sequence[tuple[Part, bytes | None]]
"""Parts of a batch, each with its compressed result lines, or None if those are too large."""


def batch_answer(
    service: Service, request: Request, batch: Batch, *, status: int = 200
) -> Response:
    """The state and the counts of a batch."""
    headers = {} if batch.is_final else {"Retry-After": _retry_after(service, batch)}
    return json_response(batch_view(batch, request.script_root), status, headers=headers)


def accepted_batch_answer(
    service: Service, request: Request, batch: Batch, accepted: Accepted
) -> Response:
    """The state of a batch that was accepted by this request, or by an earlier one with its key."""
    response = batch_answer(service, request, batch, status=202)
    response.headers["Location"] = batch_path(batch.id, request.script_root)
    if accepted.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def page_answer(
    service: Service, request: Request, batch: Batch, page: Page, parts: Parts
) -> Response:
    """A page of results as NDJSON, with where the next page begins.

    Args:
        parts: consecutive parts; the first one holds the line after `page.after`.
    """
    end = page.after
    if parts:
        last = parts[-1][0]
        end = min(last.first + last.num_lines, page.after + page.limit)
    encoding = choose(request)
    lines = encoded(_lines(service, batch, parts, page.after, end), encoding)
    response = Response(in_turns(lines), content_type=NDJSON)
    response.headers["Next-After"] = str(end)
    note_encoding(response, encoding)
    if end < batch.total:
        path = f"{batch_path(batch.id, request.script_root)}/results"
        response.headers["Link"] = f'<{path}?after={end}&limit={page.limit}>; rel="next"'
        if end == page.after:
            response.headers["Retry-After"] = _retry_after(service, batch)
    hold(response, sum(STREAM_BYTES if stored is None else len(stored) for _, stored in parts))
    return response


def _retry_after(service: Service, batch: Batch) -> str:
    """The time to score one part: then the counts may have changed."""
    part_bytes = min(batch.num_bytes, service.settings.micro_batch_bytes)
    return str(service.retry.retry_after_s(part_bytes))


def _lines(service: Service, batch: Batch, parts: Parts, after: int, end: int) -> Iterator[bytes]:
    for part, stored in parts:
        pieces = (
            service.batches.result_pieces(batch.id, part)
            if stored is None
            else pieces_of_lines(stored)
        )
        yield from result_lines(pieces, max(after - part.first, 0), end - part.first)
