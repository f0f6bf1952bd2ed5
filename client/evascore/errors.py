"""Defines the exceptions of this package; each error code of the service has a class.

EvascoreError
├── ServiceUnreachable      no connection, or no answer
├── UnexpectedAnswer        the answer is not one of evascore
├── TimedOut                the time limit of the call passed
├── ClientNotUsable         the client is closed, or belongs to another process or event loop
├── NotText                 a value to score is no text (also a TypeError)
├── NotInResult             a call reads what the result does not hold (also a ValueError)
└── ServiceError            the service refused a request, or could not score a text
    ├── ClientError             the request must change
    │   ├── RequestInvalid, MalformedBody
    │   ├── EmptyText, TextTooLarge, BodyTooLarge, UnsupportedMediaType
    │   ├── Unauthorized, Forbidden
    │   ├── JobNotFound, JobGone, JobEnded, ModelNotFound
    │   ├── IdempotencyKeyReused
    │   └── MisdirectedRequest, OriginNotAllowed
    ├── CapacityError           no room or no time; the same request may succeed later
    │   ├── Overloaded, QuotaExceeded
    │   └── JobExpired, JobCancelled
    ├── DependencyError         a part of the service is not available
    │   ├── BrokerUnavailable, WorkerUnavailable, ModelDrifted, Stalled
    │   └── JobLost, JobUnreadable, ResultNotStored, ModelGone
    └── ModelError              the model could not score the text
        ├── ScoringFailed, OutOfMemory
        └── PoisonJob

No message contains any part of a text.
"""

import copyreg
import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar, cast

from evascore.json_objects import FieldError, Problem
from evascore.wording import counted

# Lines of a refused upload that a message names; `errors` lists more of them.
MAX_LINES_NAMED = 3
# Begins a detail that needs a subject; other details are sentences of their own.
_PREDICATE = re.compile(r"(is|has|must|holds) ")
# A pointer into a list, such as /items/1/text.
_IN_LIST = re.compile(r"/\d+(/|$)")


class EvascoreError(Exception):
    """Base of all exceptions that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore a copy without `__init__`, whose arguments differ from those of `Exception`.

        An exception that cannot be restored makes `multiprocessing.Pool` wait for ever.
        """
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


_Error = TypeVar("_Error", bound=EvascoreError)


class ServiceUnreachable(EvascoreError):
    """The service did not answer; `says_remedy`: whether the message says what to do."""

    def __init__(self, message: str, *, says_remedy: bool = False) -> None:
        super().__init__(message)
        self.says_remedy = says_remedy


class UnexpectedAnswer(EvascoreError):
    """The answer is not from evascore, or from a version that this client does not know."""


class TimedOut(EvascoreError):
    """The time limit of the call passed; `task_id` is the job or batch that it waited for."""

    def __init__(self, message: str, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id


class ClientNotUsable(EvascoreError, RuntimeError):
    """The client is closed, or its connections belong to another process or event loop."""


class NotText(EvascoreError, TypeError):
    """A value to score is neither str nor bytes nor `Text`, as None and NaN of a data frame."""


class NotInResult(EvascoreError, ValueError):
    """A call reads what was not asked for, or the result of a job that has not ended."""


class ServiceError(EvascoreError):
    """An error that the service reports; each of its codes has a subclass."""

    code = "service_error"

    def __init__(self, problem: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        """Make an error.

        Args:
            problem: the problem object (RFC 9457) that the service sent.
            retry_after_s: seconds until a retry may succeed, as the service said.
        """
        super().__init__(_with_seconds(_message(problem), retry_after_s) or self.code)
        self.problem = cast(Problem, dict(problem))
        self.retry_after_s = retry_after_s

    @property
    def type(self) -> str:
        """The stable code of the error; a newer service may send codes that this client lacks."""
        return str(self.problem.get("type", self.code))

    @property
    def status(self) -> int:
        """The HTTP status of the error."""
        return int(self.problem.get("status", 0))

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return bool(self.problem.get("retryable", False))

    @property
    def request_id(self) -> str | None:
        """The ID of the request; find it in the logs of the service."""
        return self.problem.get("request_id")

    @property
    def errors(self) -> list[FieldError]:
        """What is wrong with the request, and where; one entry for each wrong place."""
        return list(self.problem.get("errors") or ())


class ClientError(ServiceError):
    """The request is wrong and must change."""

    code = "bad_request"


class RequestInvalid(ClientError):
    """A field of the request is missing, unknown or wrong."""

    code = "invalid_request"


class MalformedBody(ClientError):
    """The body cannot be read as its media type says."""

    code = "malformed_body"


class EmptyText(ClientError):
    """There is nothing to score."""

    code = "empty_text"


class TextTooLarge(ClientError):
    """A text with its context is longer than the service accepts."""

    code = "text_too_large"


class BodyTooLarge(ClientError):
    """The request body, the work or the result of the request is too large."""

    code = "body_too_large"


class UnsupportedMediaType(ClientError):
    """The service does not accept the media type, charset or encoding of the body."""

    code = "unsupported_media_type"


class Unauthorized(ClientError):
    """The service needs an API key, and none or no valid one was sent."""

    code = "unauthorized"


class Forbidden(ClientError):
    """The API key does not allow this request."""

    code = "forbidden"


class JobNotFound(ClientError):
    """There was never a job or batch with this ID."""

    code = "job_not_found"


class ModelNotFound(ClientError):
    """No worker serves the model of the request; `problem["served"]` lists the models that are."""

    code = "model_not_found"


class JobGone(ClientError):
    """The job or batch of this ID has expired or was erased."""

    code = "job_gone"


class JobEnded(ClientError):
    """The job has ended and cannot be cancelled."""

    code = "job_ended"


class IdempotencyKeyReused(ClientError):
    """The Idempotency-Key was used before, with a different request."""

    code = "idempotency_key_reused"


class MisdirectedRequest(ClientError):
    """The Host header names a host that the service does not answer to."""

    code = "misdirected_request"


class OriginNotAllowed(ClientError):
    """The request comes from a web page of another origin."""

    code = "origin_not_allowed"


class CapacityError(ServiceError):
    """The service had no room or no time; the same request may succeed later."""

    code = "capacity"


class Overloaded(CapacityError):
    """The queue of the service is full."""

    code = "overloaded"


class QuotaExceeded(CapacityError):
    """The API key has used up its quota of this minute."""

    code = "quota_exceeded"


class JobExpired(CapacityError):
    """The deadline of the job passed before it was started."""

    code = "job_expired"


class JobCancelled(CapacityError):
    """The job was cancelled."""

    code = "job_cancelled"


class DependencyError(ServiceError):
    """A part of the service is not available."""

    code = "dependency"


class BrokerUnavailable(DependencyError):
    """The Redis of the service does not answer."""

    code = "broker_unavailable"


class WorkerUnavailable(DependencyError):
    """No worker is ready."""

    code = "worker_unavailable"


class ModelDrifted(DependencyError):
    """No worker is ready; one stopped because its model gave a test text a wrong score."""

    code = "model_drifted"


class Stalled(DependencyError):
    """Work waits, and no worker makes progress."""

    code = "stalled"


class JobLost(DependencyError):
    """The text of the job is no longer stored."""

    code = "job_lost"


class JobUnreadable(DependencyError):
    """What the service stored of the job could not be read."""

    code = "job_unreadable"


class ResultNotStored(DependencyError):
    """The text was scored, but the service could not store the result."""

    code = "result_not_stored"


class ModelGone(DependencyError):
    """No worker serves the model that the job needs any more; send it again."""

    code = "model_gone"


class ModelError(ServiceError):
    """The model could not score the text."""

    code = "model_error"


class ScoringFailed(ModelError):
    """The model failed on this text; other texts are not affected."""

    code = "scoring_failed"


class OutOfMemory(ModelError):
    """The text does not fit into the memory of the worker, even alone."""

    code = "out_of_memory"


class PoisonJob(ModelError):
    """Several workers died while they scored this job."""

    code = "poison_job"


def described(error: Mapping[str, Any], whole: str) -> str:
    """Say what is wrong in one place of a request, with the place.

    Args:
        error: a `FieldError`.
        whole: names what is wrong where the error has no place, such as `line`.
    """
    detail = str(error.get("detail", "")).rstrip(".")
    place = error.get("pointer") or error.get("parameter") or error.get("header")
    if not place and _PREDICATE.match(detail):
        # An error leaves out the name of an unknown field that could be a text.
        place = f"a field of the {whole}" if detail.startswith("is not a") else f"the {whole}"
    return f"{place} {detail}" if place else detail


def placed(error: _Error, place: str) -> _Error:
    """Put the place of a text before the message of its error, and return the error."""
    error.args = (f"{place}: {error}",)
    return error


def _message(problem: Mapping[str, Any]) -> str:
    """The message of the service, with the places of what is wrong."""
    message = str(problem.get("detail") or problem.get("title") or "")
    errors: Sequence[Mapping[str, Any]] = problem.get("errors") or ()
    if not errors:
        return message
    if problem.get("type") != RequestInvalid.code:
        pointer = str(errors[0].get("pointer", ""))
        return f"{pointer}: {message}" if _IN_LIST.search(pointer) else message
    if any("line" in error for error in errors):
        return _message_of_lines(errors, problem.get("limit_errors"))
    wrong = [described(error, "request") for error in errors]
    return f"The request is not valid: {'; '.join(wrong)}."


def _message_of_lines(errors: Sequence[Mapping[str, Any]], limit: int | None) -> str:
    """The message of an upload that is refused.

    Args:
        limit: number of wrong lines that an upload may have; None if it may have none.
    """
    wrong = "; ".join(
        f"line {error.get('line')}: {described(error, 'line')}"
        for error in errors[:MAX_LINES_NAMED]
    )
    end = "; ..." if len(errors) > MAX_LINES_NAMED else "."
    begin = (
        "No" if limit is None else f"The upload has more than {counted(limit, 'wrong line')}, so no"
    )
    return f"{begin} line was accepted. {wrong[:1].upper()}{wrong[1:]}{end}"


def _with_seconds(message: str, retry_after_s: float | None) -> str:
    """Replace the name of the header Retry-After, which callers of this package do not see."""
    if retry_after_s is None:
        return message
    return message.replace("Retry-After seconds", f"{math.ceil(retry_after_s)} s")


def _tree(root: type[ServiceError]) -> list[type[ServiceError]]:
    return [root, *(leaf for branch in root.__subclasses__() for leaf in _tree(branch))]


BY_CODE: dict[str, type[ServiceError]] = {error.code: error for error in _tree(ServiceError)}


def error_from_problem(
    problem: Mapping[str, Any], retry_after_s: float | None = None
) -> ServiceError:
    """Make the exception for a problem object; an unknown code gets the class for its status."""
    kind = BY_CODE.get(str(problem.get("type"))) or _family(int(problem.get("status") or 0))
    return kind(problem, retry_after_s)


def _family(status: int) -> type[ServiceError]:
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return CapacityError
    is_callers_fault = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return ClientError if is_callers_fault else ServiceError
