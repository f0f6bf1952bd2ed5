"""Reads `POST /score`: the body and the query become a checked job."""

import hashlib

from flask import Request, g

from app.requests.body import parse_body, read_body, refuse_encodings
from app.requests.clients import client_of
from app.requests.headers import idempotency, idempotency_key
from app.requests.intake import canonical_json, to_job
from app.requests.query import Query, options_of_texts, with_defaults
from app.service.components import Service
from contract.messages import Job
from contract.store.admission.outcomes import Idempotency


def read_job(request: Request, query: Query, service: Service) -> Job:
    """The job that a request asks for.

    Raises:
        ClientError: the request must change.
    """
    body = read_body(request, service.settings.max_body_bytes)
    g.body_bytes = len(body)
    refuse_encodings(request)
    content_type = request.headers.get("Content-Type", "")
    now, request_id, client = service.jobs.now(), g.request_id, client_of(request)
    is_apart = service.large_work.is_apart(len(body))
    # A thread of its own must not ask Redis.
    models = service.models.frozen() if is_apart else service.models

    def checked() -> Job:
        fields = parse_body(body, content_type)
        fields = with_defaults(fields, options_of_texts(query))
        limits = models.limits(fields.get("model"))
        return to_job(fields, limits, now=now, request_id=request_id, client=client)

    return service.large_work.run(len(body), checked)


def idempotency_of(job: Job) -> Idempotency | None:
    """Tie the request's Idempotency-Key to `job`; None if it has no key.

    Raises:
        RequestInvalid
    """
    key = idempotency_key()
    return None if key is None else idempotency(key, hashlib.sha256(canonical_json(job)), job.owner)
