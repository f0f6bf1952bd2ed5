"""Defines the errors that a user can meet; each has a stable code that is part of the API.

ServiceError
├── ClientError             the request must be changed
│   ├── RequestInvalid, MalformedBody
│   ├── EmptyText, TextTooLarge, BodyTooLarge, UnsupportedMediaType
│   ├── Unauthorized, Forbidden
│   ├── JobNotFound, JobGone, JobEnded, ModelNotFound
│   ├── IdempotencyKeyReused
│   └── MisdirectedRequest, OriginNotAllowed
├── CapacityError           the same request may succeed later
│   ├── Overloaded, QuotaExceeded
│   └── JobExpired, JobCancelled
├── DependencyError         a part of the service is not available
│   ├── BrokerUnavailable, WorkerUnavailable, ModelDrifted, Stalled
│   └── JobLost, JobUnreadable, ResultNotStored, ModelGone
└── ModelError              the model could not score the text
    ├── ScoringFailed, OutOfMemory
    └── PoisonJob

The web tier maps codes to HTTP statuses (`app/responses/problems.py`). The class name and the
message travel through Redis, so that Celery's own clients raise the same class.
"""

from typing import Any


class ServiceError(Exception):
    """An error that the user reads: a stable `code`, and a message without text of the user."""

    code = "service_error"
    retryable = False

    def __init__(self, message: str, **details: Any) -> None:
        """Make an error.

        Args:
            message: what was wrong, the limit, and what to do.
            details: JSON-ready facts for programs, such as `limit_bytes`.
        """
        super().__init__(message)
        self.message = message
        self.details = details


class ClientError(ServiceError):
    """The request is wrong and must be changed."""

    code = "bad_request"


class RequestInvalid(ClientError):
    """A field of the request is missing, unknown or wrong; `errors` lists {detail, pointer}."""

    code = "invalid_request"


class MalformedBody(ClientError):
    """The body is not valid for its media type."""

    code = "malformed_body"


class EmptyText(ClientError):
    """There is nothing to score."""

    code = "empty_text"


class TextTooLarge(ClientError):
    """A text is longer than the model's context."""

    code = "text_too_large"


class BodyTooLarge(ClientError):
    """The request body, or the work it asks for, is over its limit."""

    code = "body_too_large"


class UnsupportedMediaType(ClientError):
    """The body's media type or charset is not supported."""

    code = "unsupported_media_type"


class Unauthorized(ClientError):
    """The request has no valid API key."""

    code = "unauthorized"


class Forbidden(ClientError):
    """The API key does not allow this request."""

    code = "forbidden"


class JobNotFound(ClientError):
    """The task ID was never issued."""

    code = "job_not_found"


class ModelNotFound(ClientError):
    """No worker serves the model that the request names; `served` lists the models that are."""

    code = "model_not_found"


class JobGone(ClientError):
    """The result of this task ID has expired or was erased."""

    code = "job_gone"


class JobEnded(ClientError):
    """The job has ended and can no longer be cancelled."""

    code = "job_ended"


class IdempotencyKeyReused(ClientError):
    """The Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"


class MisdirectedRequest(ClientError):
    """The Host header names a host that the service does not answer to."""

    code = "misdirected_request"


class OriginNotAllowed(ClientError):
    """The request comes from a web page of another origin."""

    code = "origin_not_allowed"


class CapacityError(ServiceError):
    """There was no room or no time; the same request may succeed later."""

    code = "capacity"
    retryable = True


class Overloaded(CapacityError):
    """The queue is full."""

    code = "overloaded"


class QuotaExceeded(CapacityError):
    """The API key has used up its quota of this minute."""

    code = "quota_exceeded"


class JobExpired(CapacityError):
    """The job's deadline passed before it was scored."""

    code = "job_expired"


class JobCancelled(CapacityError):
    """The job was cancelled before it was scored."""

    code = "job_cancelled"


class DependencyError(ServiceError):
    """A part of the service is not available."""

    code = "dependency"
    retryable = True


class BrokerUnavailable(DependencyError):
    """Redis does not answer or refuses writes."""

    code = "broker_unavailable"


class WorkerUnavailable(DependencyError):
    """No worker is ready."""

    code = "worker_unavailable"


class ModelDrifted(DependencyError):
    """No worker is ready, and one stopped because its model gave a wrong score."""

    code = "model_drifted"


class Stalled(DependencyError):
    """Work waits, and no worker makes progress."""

    code = "stalled"


class JobLost(DependencyError):
    """The job's text is no longer stored."""

    code = "job_lost"


class JobUnreadable(DependencyError):
    """What is stored of the job could not be read."""

    code = "job_unreadable"


class ResultNotStored(DependencyError):
    """The text was scored, but Redis did not take the result."""

    code = "result_not_stored"


class ModelGone(DependencyError):
    """No worker serves the model that this job needs any more."""

    code = "model_gone"


class ModelError(ServiceError):
    """The model could not score the text."""

    code = "model_error"


class ScoringFailed(ModelError):
    """The forward pass failed for this text alone."""

    code = "scoring_failed"


class OutOfMemory(ModelError):
    """The text needs more memory than the device has, even alone."""

    code = "out_of_memory"
    retryable = True


class PoisonJob(ModelError):
    """The job was being scored when several workers died."""

    code = "poison_job"


def _tree(root: type[ServiceError]) -> list[type[ServiceError]]:
    return [root, *(leaf for branch in root.__subclasses__() for leaf in _tree(branch))]


BY_CODE: dict[str, type[ServiceError]] = {error.code: error for error in _tree(ServiceError)}


def error_body(error: ServiceError) -> dict[str, Any]:
    """An error as it travels: code, message, whether a retry may help, and its details."""
    body = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return {**error.details, **body}
