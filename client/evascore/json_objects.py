"""Defines the types of JSON objects that stay dictionaries: models, times, links, limits, errors.

They may have further keys: a newer service may send fields that this client does not know.
"""

from typing import Literal, NotRequired, TypedDict


class Model(TypedDict, total=False):
    """The model that gave a score; empty where the service names it elsewhere."""

    name: str
    fingerprint: str
    """Scores of models with one fingerprint differ by rounding alone."""
    revision: str
    """Identifies the weights: other weights have another revision."""
    quantization: str
    dtype: str
    backend: str
    is_demo: bool
    """Whether it is the small bundled model."""


class ListedModel(TypedDict):
    """A model that workers serve now."""

    id: str
    """What a request calls it: its name, or `name@fingerprint` if the name means another model."""
    object: Literal["model"]
    created: int
    """When its oldest worker started: Unix time, seconds."""
    owned_by: Literal["evascore"]
    name: str
    fingerprint: str
    """Scores of models with one fingerprint differ by rounding alone."""
    is_default: bool
    """Whether a request without `model` gets it."""
    workers: int
    """Workers that serve it."""
    revision: str
    quantization: str
    dtype: str
    max_text_bytes: int | None
    window_size: int | None
    is_demo: bool


class Timings(TypedDict, total=False):
    """Where the time of a job went, in milliseconds."""

    queue: float
    """From the request until a worker took the job."""
    batch_wait: float
    """From then until its micro-batch began."""
    compute: float
    """In the micro-batches that scored it."""
    total: float
    """From the request until the result was stored."""


class MicroBatch(TypedDict, total=False):
    """Size of the last micro-batch that scored the job, the job included."""

    texts: int
    bytes: int


class Usage(TypedDict, total=False):
    """What a job cost."""

    bytes: int
    """Bytes that the model read."""


class JobLinks(TypedDict):
    """Paths of a job."""

    self: str
    events: str
    cancel: NotRequired[str]
    """Only while the job has not ended."""


class BatchLinks(TypedDict):
    """Paths of a batch."""

    self: str
    results: str
    events: str
    cancel: NotRequired[str]
    """Only while the batch has not ended."""


class ServiceName(TypedDict):
    """Name and version of the service."""

    name: str
    version: str


class Limits(TypedDict):
    """Limits of a request; docs/settings.md describes each under the same name."""

    max_text_bytes: int
    max_windowed_bytes: int
    max_items: int
    max_continuations: int
    max_body_bytes: int
    max_job_bytes: int
    max_result_bytes: int
    max_upload_lines: int
    max_upload_errors: int
    max_upload_bytes: int
    max_queued_bytes: int
    max_queued_jobs: int
    max_bulk_bytes: int
    max_queued_batches: int
    max_top_k: int
    deadline_s: float
    max_deadline_s: float
    max_upload_deadline_s: float
    max_wait_s: float
    result_ttl_s: int


class FieldError(TypedDict):
    """One thing that is wrong with a request, and the place where it is wrong."""

    detail: str
    pointer: NotRequired[str]
    """RFC 6901 pointer into the JSON body."""
    parameter: NotRequired[str]
    """Name of the query parameter."""
    header: NotRequired[str]
    """Name of the header field."""
    line: NotRequired[int]
    """Line of the upload, from 1."""


class Problem(TypedDict, total=False):
    """An error as the service sends it, in the form of RFC 9457."""

    type: str
    """The stable code."""
    title: str
    status: int
    detail: str
    retryable: bool
    """Whether the same request may succeed later."""
    request_id: str | None
    errors: list[FieldError]
    limit_bytes: int
    """The limit that was exceeded."""
    actual_bytes: int
    """The size that exceeded it."""
