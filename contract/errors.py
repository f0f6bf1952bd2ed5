"""The errors a user of evascore can meet; each has a stable code that is part of the API.

ServiceError
├── ClientError             the request must change
│   ├── RequestInvalid, MalformedBody
│   ├── EmptyText, TextTooLarge, BodyTooLarge, UnsupportedMediaType
│   ├── JobNotFound, JobGone, JobEnded
│   └── IdempotencyKeyReused
├── CapacityError           the same request may pass later
│   ├── Overloaded
│   └── JobExpired, JobCancelled
├── DependencyError         a part of the service is away
│   ├── BrokerUnavailable, WorkerUnavailable, ModelDrifted
│   └── JobLost
└── ModelError              the model could not do it
    ├── ScoringFailed, OutOfMemory
    └── PoisonJob

Status codes are the web tier's business (`app/responses/problems.py`). Over Redis travel the class
name and the message, so that Celery's own clients raise the same class.
"""

from typing import Any


class ServiceError(Exception):
    """An error that is told to the user, with a stable `code` and a message free of user text."""

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
    """The request is wrong and must change."""

    code = "bad_request"


class RequestInvalid(ClientError):
    """A field of the request is missing, unknown or wrong; `errors` lists {detail, pointer}."""

    code = "invalid_request"


class MalformedBody(ClientError):
    """The body is not what its media type says."""

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
    """The body's media type or charset is not served."""

    code = "unsupported_media_type"


class JobNotFound(ClientError):
    """The task ID was never given out."""

    code = "job_not_found"


class JobGone(ClientError):
    """The task ID was given out, and its result has expired or was erased."""

    code = "job_gone"


class JobEnded(ClientError):
    """The job is in a final state and cannot be cancelled any more."""

    code = "job_ended"


class IdempotencyKeyReused(ClientError):
    """The Idempotency-Key came before with another request."""

    code = "idempotency_key_reused"


class CapacityError(ServiceError):
    """There was no room or no time; the same request may pass later."""

    code = "capacity"
    retryable = True


class Overloaded(CapacityError):
    """The queue is full."""

    code = "overloaded"


class JobExpired(CapacityError):
    """The job's deadline passed before it was scored."""

    code = "job_expired"


class JobCancelled(CapacityError):
    """The job was cancelled before it was scored."""

    code = "job_cancelled"


class DependencyError(ServiceError):
    """A part of the service is away."""

    code = "dependency"
    retryable = True


class BrokerUnavailable(DependencyError):
    """Redis does not answer or refuses writes."""

    code = "broker_unavailable"


class WorkerUnavailable(DependencyError):
    """No warm worker holds a lease."""

    code = "worker_unavailable"


class ModelDrifted(DependencyError):
    """No worker is warm, and one stopped because its model did not score as it must."""

    code = "model_drifted"


class JobLost(DependencyError):
    """The job's text is no longer stored."""

    code = "job_lost"


class ModelError(ServiceError):
    """The model could not score the text."""

    code = "model_error"


class ScoringFailed(ModelError):
    """The forward pass failed for this text alone."""

    code = "scoring_failed"


class OutOfMemory(ModelError):
    """The text does not fit the device's memory even alone."""

    code = "out_of_memory"
    retryable = True


class PoisonJob(ModelError):
    """The job was aboard several workers that died."""

    code = "poison_job"


def _tree(root: type[ServiceError]) -> list[type[ServiceError]]:
    return [root, *(leaf for branch in root.__subclasses__() for leaf in _tree(branch))]


BY_CODE: dict[str, type[ServiceError]] = {error.code: error for error in _tree(ServiceError)}


def error_body(error: ServiceError) -> dict[str, Any]:
    """An error as it travels: code, message, whether a retry may help, and its details."""
    body = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return {**error.details, **body}
