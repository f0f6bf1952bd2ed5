"""What can go wrong, as exceptions; those that the service tells have its stable codes.

EvascoreError
├── ServiceUnreachable      no connection, or no answer
├── UnexpectedAnswer        an answer that is not evascore's
├── TimedOut                the time that the caller gave is up
└── ServiceError            what the service answered, or says of a text that it could not score
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

No message holds a piece of a text.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any


class EvascoreError(Exception):
    """Anything that this package raises on purpose."""


class ServiceUnreachable(EvascoreError):
    """The service did not answer."""


class UnexpectedAnswer(EvascoreError):
    """Something answered that is not evascore, or not a version that this client knows."""


class TimedOut(EvascoreError):
    """The time given is up; `task_id` names the job that was waited for, if there is one."""

    def __init__(self, message: str, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id


class ServiceError(EvascoreError):
    """An error that the service tells; subclasses stand for its codes."""

    code = "service_error"

    def __init__(self, problem: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        """Make an error.

        Args:
            problem: the problem object of RFC 9457 as the service gave it.
            retry_after_s: when the service said that a repetition may pass.
        """
        super().__init__(_message(problem) or self.code)
        self.problem = dict(problem)
        self.retry_after_s = retry_after_s

    @property
    def type(self) -> str:
        """The stable code; it may be newer than this client."""
        return str(self.problem.get("type", self.code))

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.problem.get("status", 0))

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may pass later."""
        return bool(self.problem.get("retryable", False))

    @property
    def request_id(self) -> str | None:
        """Names the request in the service's logs."""
        return self.problem.get("request_id")

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What is wrong with the request, and where: `detail` with `pointer` or `parameter`."""
        return list(self.problem.get("errors") or ())


class ClientError(ServiceError):
    """The request is wrong and must change."""

    code = "bad_request"


class RequestInvalid(ClientError):
    """A field of the request is missing, unknown or wrong."""

    code = "invalid_request"


class MalformedBody(ClientError):
    """The body is not what its media type says."""

    code = "malformed_body"


class EmptyText(ClientError):
    """There is nothing to score."""

    code = "empty_text"


class TextTooLarge(ClientError):
    """A text, with its context, is longer than the service takes."""

    code = "text_too_large"


class BodyTooLarge(ClientError):
    """The request, or the work that it asks for, is too large."""

    code = "body_too_large"


class UnsupportedMediaType(ClientError):
    """The body's media type, charset or encoding is not served."""

    code = "unsupported_media_type"


class JobNotFound(ClientError):
    """The ID was never given out."""

    code = "job_not_found"


class JobGone(ClientError):
    """The ID was given out; what it stood for has expired or was erased."""

    code = "job_gone"


class JobEnded(ClientError):
    """The job is final and cannot be cancelled any more."""

    code = "job_ended"


class IdempotencyKeyReused(ClientError):
    """The Idempotency-Key came before with another request."""

    code = "idempotency_key_reused"


class CapacityError(ServiceError):
    """There was no room or no time; the same request may pass later."""

    code = "capacity"


class Overloaded(CapacityError):
    """The queue is full."""

    code = "overloaded"


class JobExpired(CapacityError):
    """The job's deadline passed before it was begun."""

    code = "job_expired"


class JobCancelled(CapacityError):
    """The job was cancelled."""

    code = "job_cancelled"


class DependencyError(ServiceError):
    """A part of the service is away."""

    code = "dependency"


class BrokerUnavailable(DependencyError):
    """The service's Redis does not answer."""

    code = "broker_unavailable"


class WorkerUnavailable(DependencyError):
    """No worker is warm."""

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
    """The model failed on this text alone."""

    code = "scoring_failed"


class OutOfMemory(ModelError):
    """The text does not fit the worker's memory even alone."""

    code = "out_of_memory"


class PoisonJob(ModelError):
    """The job was aboard several workers that died."""

    code = "poison_job"


def _message(problem: Mapping[str, Any]) -> str:
    """What the service says, and of several wrong fields what is wrong with each."""
    message = str(problem.get("detail") or problem.get("title") or "")
    if problem.get("type") != RequestInvalid.code:
        return message
    wrong = [
        f"{error.get('pointer') or error.get('parameter') or error.get('header') or ''} "
        f"{error.get('detail', '')}".strip()
        for error in problem.get("errors") or ()
    ]
    return f"The request is not valid: {'; '.join(wrong)}." if wrong else message


def _tree(root: type[ServiceError]) -> list[type[ServiceError]]:
    return [root, *(leaf for branch in root.__subclasses__() for leaf in _tree(branch))]


BY_CODE: dict[str, type[ServiceError]] = {error.code: error for error in _tree(ServiceError)}


def error_from_problem(
    problem: Mapping[str, Any], retry_after_s: float | None = None
) -> ServiceError:
    """The exception that a problem object stands for; of a code that is new, its family."""
    kind = BY_CODE.get(str(problem.get("type"))) or _family(int(problem.get("status") or 0))
    return kind(problem, retry_after_s)


def _family(status: int) -> type[ServiceError]:
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return CapacityError
    is_callers_fault = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return ClientError if is_callers_fault else ServiceError
