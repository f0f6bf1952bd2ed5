"""Reads `POST /score`: the body and the query become a checked job."""

import hashlib
import time

from flask import Request, g

from app.requests.body import parse_body, read_body, refuse_encodings
from app.requests.clients import client_of
from app.requests.headers import idempotency, idempotency_key
from app.requests.intake import canonical_json, to_job
from app.requests.query import Query, options_of_texts, with_defaults
from app.service.components import Service
from contract.messages import Job
from contract.store.admission import Idempotency


def read_job(request: Request, query: Query, service: Service) -> Job:
    """The job that a request asks for.

    Raises:
        ClientError: the request must change.
    """
    body = read_body(request, service.settings.max_body_bytes)
    g.body_bytes = len(body)
    refuse_encodings(request)
    fields = parse_body(body, request.headers.get("Content-Type", ""))
    fields = with_defaults(fields, options_of_texts(query))
    return to_job(
        fields,
        service.models.limits(fields.get("model")),
        now=time.time(),
        request_id=g.request_id,
        client=client_of(request),
    )


def idempotency_of(job: Job) -> Idempotency | None:
    """Tie the request's Idempotency-Key to `job`; None if it has no key.

    Raises:
        RequestInvalid
    """
    key = idempotency_key()
    return None if key is None else idempotency(key, hashlib.sha256(canonical_json(job)))
