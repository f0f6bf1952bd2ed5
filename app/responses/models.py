"""Defines the models of JSON answers, from which `/openapi.json` is made; tests check answers.

Views build answers as plain dictionaries, because one model per byte of a long text would be slow.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Time = str
"""RFC 3339 in UTC, to the millisecond."""


class Answer(BaseModel):
    """Base of all answers: it allows no field that is not described."""

    model_config = ConfigDict(extra="forbid")


class FieldError(Answer):
    """One error in a request and its place: `pointer`, `parameter` or `header`."""

    detail: str
    pointer: str | None = Field(None, description="RFC 6901 pointer into the JSON body.")
    parameter: str | None = Field(None, description="Name of the query parameter.")
    header: str | None = Field(None, description="Name of the header field.")
    line: int | None = Field(None, description="In an upload: the number of the line, from 1.")


class Problem(BaseModel):
    """An error, in the form of RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="The stable code of the error.")
    title: str = Field(description="The code in words.")
    status: int = Field(description="The HTTP status of the error.")
    detail: str = Field(description="What was wrong, the limit, and what to do.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    request_id: str | None = Field(None, description="Names the request in the service's logs.")
    errors: list[FieldError] | None = Field(
        None, description="The errors in the request, with their places."
    )
    limit_bytes: int | None = Field(None, description="The limit that was exceeded.")
    actual_bytes: int | None = Field(None, description="The size that exceeded it.")


class ByteScores(Answer):
    """One number per scored byte in each list."""

    log_prob_nats: list[float] = Field(description="ln p(byte | all bytes before it).")
    rank: list[int] = Field(description="Rank of the byte among all 320 ids; 1 is the likeliest.")
    entropy_bits: list[float] = Field(description="Entropy of the model's prediction.")


class Span(Answer):
    """The score of a range of the text."""

    start: int = Field(description="Index of its first byte, from 0.")
    end: int = Field(description="Index after its last byte.")
    num_bytes: int
    log_likelihood_nats: float = Field(description="ln p(span | the text before it).")
    bits_per_byte: float | None = Field(
        description="-log2 p(span | the text before it) / num_bytes; null for an empty span."
    )


class Window(Answer):
    """One sliding window: the bytes that it scored, and the context that it read."""

    start: int = Field(description="Index of the first byte that this window scored.")
    end: int = Field(description="Index after the last byte that it scored.")
    context_from: int = Field(description="Index of the first byte that it read as context.")


class NextChars(Answer):
    """What may follow the text; the probabilities of the four fields add up to 1."""

    characters: list[tuple[str, float]] = Field(
        description="The likeliest characters as [character, probability], likeliest first."
    )
    other: float = Field(description="Probability of the other characters that were examined.")
    invalid: float = Field(description="Probability of bytes that are not UTF-8.")
    undecided: float = Field(
        description="Probability of incomplete characters that were not followed further."
    )


class Scores(Answer):
    """The scores of one text, in bits, but in nats where the name ends in `_nats`."""

    num_bytes: int = Field(description="Number of scored bytes, without the begin-of-text id.")
    num_chars: int | None = Field(
        description="Number of Unicode characters; null if the text is not UTF-8."
    )
    log_likelihood_nats: float = Field(description="ln p(text), the sum over its bytes.")
    bits_per_byte: float | None = Field(
        description="-log2 p(text) / num_bytes; null for the empty text."
    )
    byte_perplexity: float | None = Field(
        description="2 ** bits_per_byte; null beyond the range of a float."
    )
    is_greedy: bool = Field(description="Whether each byte was the likeliest one at its position.")
    bytes: ByteScores | None = Field(None, description="Present with the output `bytes`.")
    top_k: list[list[tuple[int, float]]] | None = Field(
        None,
        description=(
            "Present with the output `top_k`: for each position the likeliest bytes as "
            "[byte, log_prob_nats]. -64 to -1 stand for the model's special ids 0 to 63."
        ),
    )
    curvature: float | None = Field(
        None,
        description="Fast-DetectGPT's statistic, with the output `curvature`; not a probability.",
    )
    spans: list[Span] | None = Field(None, description="Present with `spans`, in text order.")
    next_chars: NextChars | None = Field(None, description="Present with `next_chars`.")
    windows: list[Window] | None = Field(None, description="Present with `window`.")


class Continuations(Answer):
    """The scores of the continuations of one context, in the order of the request."""

    continuations: list[Scores]


class Item(Answer):
    """One of `items`: its result or its error."""

    custom_id: str | None = None
    result: Scores | Continuations | None = None
    error: Problem | None = None


class Model(BaseModel):
    """The model that gave the scores; /info has more of it."""

    model_config = ConfigDict(extra="allow")

    name: str
    fingerprint: str = Field(
        "",
        description=(
            "Identifies weights, configuration, quantization and dtype: scores of models with one "
            "fingerprint differ by rounding alone. Absent in results of release 0.1."
        ),
    )
    revision: str = Field(
        description="Identifies the weights: different weights have a different revision."
    )
    quantization: str
    dtype: str
    backend: str
    is_demo: bool = Field(description="Whether it is the small bundled model.")


class Timings(Answer):
    """The time of each stage, in milliseconds."""

    queue: float = Field(description="From the POST until a worker took the job.")
    batch_wait: float = Field(description="From then until its micro-batch began.")
    compute: float = Field(description="Compute time of the micro-batches that held its texts.")
    total: float = Field(description="From the POST until the result was stored.")


class Batch(Answer):
    """The size of the job's last micro-batch, including texts of other jobs."""

    texts: int
    bytes: int


class Usage(Answer):
    """Resources that the job used."""

    bytes: int = Field(description="Bytes that the model read.")


class Circumstances(Answer):
    """Which model scored a job, how long it took, and how much it read."""

    model: Model
    timings_ms: Timings
    batch: Batch
    usage: Usage


class ScoresResult(Scores, Circumstances):
    """The result of one text."""

    custom_id: str | None = None


class ContinuationsResult(Continuations, Circumstances):
    """The result of one context with its continuations."""

    custom_id: str | None = None


class ItemsResult(Circumstances):
    """The result of several items, in the order of the request."""

    items: list[Item]


class Links(Answer):
    """Paths of a job."""

    self: str
    events: str
    cancel: str | None = Field(None, description="Present until the job has ended.")


class JobView(Answer):
    """A job: its state, and its result or error once it has ended."""

    id: str = Field(description="The task ID.")
    state: Literal["QUEUED", "STARTED", "SUCCESS", "FAILURE", "REVOKED"]
    submitted_at: Time | None
    deadline_at: Time | None = Field(description="A job that has not begun by then expires.")
    finished_at: Time | None = Field(description="Null until the job has ended.")
    num_texts: int | None
    num_bytes: int | None = Field(description="Bytes that the model reads for it.")
    result: ScoresResult | ContinuationsResult | ItemsResult | None = Field(
        None, description="Present in state SUCCESS."
    )
    error: Problem | None = Field(None, description="Present in the states FAILURE and REVOKED.")
    links: Links


class Health(Answer):
    """Answer of a health check that passed."""

    status: Literal["ok"]


class Readiness(Health):
    """Answer of `/readyz` while a text that is sent now would be scored."""

    ready_workers: int


class ServiceName(Answer):
    """The name and the version of the service."""

    name: str
    version: str


class Index(Answer):
    """The service and the paths of its routes."""

    service: ServiceName
    links: dict[str, str] = Field(description="Path of each route, by its purpose.")


class Limits(Answer):
    """The limits of a request; docs/settings.md describes each under the same name."""

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


class ListedModel(Answer):
    """A model that workers serve now."""

    id: str = Field(
        description=(
            "What `model` of a request calls it: its name, or `name@fingerprint` once the name "
            "means another model."
        )
    )
    object: Literal["model"]
    created: int = Field(description="When its oldest worker started: Unix time, seconds.")
    owned_by: Literal["evascore"]
    name: str
    fingerprint: str = Field(
        description="Scores of models with one fingerprint differ by rounding alone."
    )
    is_default: bool = Field(description="Whether a request without `model` gets it.")
    workers: int = Field(description="Workers that serve it.")
    revision: str
    quantization: str
    dtype: str
    max_text_bytes: int | None
    window_size: int | None = Field(description="The attention window of the model, in bytes.")
    is_demo: bool


class ModelList(Answer):
    """The models that workers serve now."""

    object: Literal["list"]
    data: list[ListedModel]


class Info(Answer):
    """The served models, the outputs and the limits of requests."""

    service: ServiceName
    model: dict[str, Any] | None = Field(
        description="The default model, or that of a running worker; null without one."
    )
    models: list[ListedModel] = Field(description="As in /v1/models.")
    outputs: list[str]
    priorities: list[str]
    limits: Limits


class ModelQueueView(Answer):
    """What no worker has fetched yet of the jobs, and of the parts of batches, of one model."""

    name: str | None = Field(description="Null for a model that another one has replaced.")
    fingerprint: str | None = Field(
        description="Null for what was accepted before any model was known."
    )
    interactive: int
    bulk: int


class Queue(Answer):
    """Accepted jobs that have not ended, including those being scored."""

    jobs: int
    bytes: int
    max_jobs: int
    max_bytes: int
    parked: int = Field(
        description="Jobs that only a worker of a newer release can read; they wait for one."
    )
    models: list[ModelQueueView] = Field(
        description="What waits for each current model, and for others if anything does."
    )


class RecentWork(Answer):
    """The last micro-batches and interactive jobs of all workers; null if there were none."""

    bytes_per_s: float | None = Field(description="Sum of the workers' smoothed speeds.")
    num_batches: int
    mean_batch_texts: float | None
    mean_batch_bytes: float | None
    mean_batch_ms: float | None = Field(description="Mean compute time of a micro-batch.")
    num_latencies: int
    latency_p50_ms: float | None = Field(description="Median, from the POST to the stored result.")
    latency_p95_ms: float | None


class Bulk(Answer):
    """The uploads to /batches that have not ended."""

    batches: int = Field(description="Accepted batches that have not ended.")
    lines: int = Field(description="Lines that have not ended.")
    bytes: int = Field(
        description="Bytes that the model reads for those lines, at least 64 for each."
    )
    max_batches: int
    max_bytes: int
    redis_bytes: int = Field(description="Memory that Redis uses in all.")
    max_redis_bytes: int = Field(
        description="Above it, promised_bytes included, new jobs and batches are refused."
    )
    promised_bytes: int = Field(
        description="Room in Redis for the results of jobs and batches that have not ended."
    )


class DeadLetterView(Answer):
    """What could not be read and was set aside, without its content."""

    kind: str = Field(description="`message`, `payload`, `record` or `lease`.")
    reason: str
    at: str = Field(description="When it was set aside, RFC 3339.")


class DeadLettersView(Answer):
    """What could not be read and was set aside."""

    count: int
    latest: list[DeadLetterView] = Field(description="The last ten, newest first.")


class Stats(Answer):
    """The queue, the batches, the workers and the totals."""

    queue: Queue
    recent: RecentWork
    batches: Bulk
    workers: list[dict[str, Any]] = Field(description="The status of each running worker.")
    dead_letters: DeadLettersView
    totals: dict[str, int] = Field(
        description="Ended jobs by outcome, since the data folder was made."
    )
