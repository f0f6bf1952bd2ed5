"""The JSON that the API gives, as models; /openapi.json is made from them, tests check by them.

Answers are built as plain dictionaries: a model per byte of a long text would cost more than all
else.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Time = str
"""RFC 3339 in UTC, to the millisecond."""


class Answer(BaseModel):
    """What all answers share: no field that is not described."""

    model_config = ConfigDict(extra="forbid")


class FieldError(Answer):
    """One thing that is wrong in a request, and where; one of the three places is given."""

    detail: str
    pointer: str | None = Field(None, description="RFC 6901 pointer into the JSON body.")
    parameter: str | None = Field(None, description="Name of the query parameter.")
    header: str | None = Field(None, description="Name of the header field.")
    line: int | None = Field(None, description="Of a batch: the line of the upload, from 1.")


class Problem(BaseModel):
    """An error, in the form of RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="The stable code of the error.")
    title: str = Field(description="The code in words.")
    status: int = Field(description="The HTTP status of the error.")
    detail: str = Field(description="What was wrong, the limit, and what to do.")
    retryable: bool = Field(description="Whether the same request may pass later.")
    request_id: str | None = Field(None, description="Names the request in the service's logs.")
    errors: list[FieldError] | None = Field(None, description="What is wrong, and where.")
    limit_bytes: int | None = Field(None, description="The limit that was exceeded.")
    actual_bytes: int | None = Field(None, description="The size that exceeded it.")


class ByteScores(Answer):
    """One number per scored byte in each list."""

    log_prob_nats: list[float] = Field(description="ln p(byte | all bytes before it).")
    rank: list[int] = Field(description="1 where no byte was likelier, of 320 possible ids.")
    entropy_bits: list[float] = Field(description="Entropy of the model's prediction.")


class Span(Answer):
    """The score of a stretch of the text."""

    start: int = Field(description="Its first byte, counted from 0.")
    end: int = Field(description="The byte behind its last one.")
    num_bytes: int
    log_likelihood_nats: float = Field(description="ln p(span | the text before it).")
    bits_per_byte: float | None = Field(
        description="-log2 of that / num_bytes; null for an empty span."
    )


class Window(Answer):
    """Bytes that were scored together, and given which ones."""

    start: int = Field(description="The first byte that got its score here.")
    end: int = Field(description="The byte behind the last one.")
    context_from: int = Field(description="The first byte that was read.")


class NextChars(Answer):
    """What may follow the text; the four parts have a probability of 1 together."""

    characters: list[tuple[str, float]] = Field(
        description="The likeliest as [character, probability], likeliest first."
    )
    other: float = Field(description="Probability of other characters that were looked at.")
    invalid: float = Field(description="Probability of what was seen to be no UTF-8.")
    undecided: float = Field(description="Probability of beginnings that were not followed.")


class Scores(Answer):
    """The scores of one text; bits elsewhere than in `_nats`."""

    num_bytes: int = Field(description="Scored bytes; the begin-of-text id is none of them.")
    num_chars: int | None = Field(description="Unicode characters; null if not UTF-8.")
    log_likelihood_nats: float = Field(description="ln p(text), the sum over its bytes.")
    bits_per_byte: float | None = Field(
        description="-log2 p(text) / num_bytes; null for the empty text."
    )
    byte_perplexity: float | None = Field(
        description="2 ** bits_per_byte; null beyond the range of a float."
    )
    is_greedy: bool = Field(description="Whether each byte was the likeliest at its place.")
    bytes: ByteScores | None = Field(None, description="With the output `bytes`.")
    top_k: list[list[tuple[int, float]]] | None = Field(
        None,
        description=(
            "With the output `top_k`: for each byte the likeliest as [byte, log_prob_nats]; "
            "-64 to -1 stand for the model's special ids 0 to 63."
        ),
    )
    curvature: float | None = Field(
        None,
        description="With the output `curvature`: Fast-DetectGPT's statistic; no probability.",
    )
    spans: list[Span] | None = Field(None, description="With `spans`, in the order of the text.")
    next_chars: NextChars | None = Field(None, description="With `next_chars`.")
    windows: list[Window] | None = Field(None, description="With `window`.")


class Continuations(Answer):
    """The scores of the continuations of one context, in the order of the request."""

    continuations: list[Scores]


class Item(Answer):
    """One of `items`: its result or its error."""

    custom_id: str | None = None
    result: Scores | Continuations | None = None
    error: Problem | None = None


class Model(BaseModel):
    """The model that gave the scores; /info tells more of it."""

    model_config = ConfigDict(extra="allow")

    name: str
    revision: str = Field(description="Stands for the weights: other weights, another revision.")
    quantization: str
    dtype: str
    backend: str
    is_demo: bool = Field(description="Whether it is the small bundled model.")


class Timings(Answer):
    """Where the time went, in milliseconds."""

    queue: float = Field(description="From the POST until a worker took the job.")
    batch_wait: float = Field(description="From then until its batch began.")
    compute: float = Field(description="Time of the batches that it took part in.")
    total: float = Field(description="From the POST until the result was stored.")


class Batch(Answer):
    """What shared the last batch of the job, itself included."""

    texts: int
    bytes: int


class Usage(Answer):
    """What the job cost."""

    bytes: int = Field(description="Bytes that the model read.")


class Circumstances(Answer):
    """How the scores of a job came about."""

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
    cancel: str | None = Field(None, description="While the job is not final.")


class JobView(Answer):
    """A job: its state, and its result or error once it has ended."""

    id: str = Field(description="The task ID.")
    state: Literal["QUEUED", "STARTED", "SUCCESS", "FAILURE", "REVOKED"]
    submitted_at: Time | None
    deadline_at: Time | None = Field(description="Later the job is not begun any more.")
    finished_at: Time | None = Field(description="Null while the job is not final.")
    num_texts: int | None
    num_bytes: int | None = Field(description="Bytes that the model reads for it.")
    result: ScoresResult | ContinuationsResult | ItemsResult | None = Field(
        None, description="In state SUCCESS only."
    )
    error: Problem | None = Field(None, description="In the states FAILURE and REVOKED only.")
    links: Links


class Health(Answer):
    """All is well."""

    status: Literal["ok"]


class ServiceName(Answer):
    """What answers."""

    name: str
    version: str


class Index(Answer):
    """Where things are."""

    service: ServiceName
    links: dict[str, str] = Field(description="Paths, by what they are for.")


class Limits(Answer):
    """What a request may ask for; docs/settings.md tells each by the same name."""

    max_text_bytes: int
    max_windowed_bytes: int
    max_items: int
    max_continuations: int
    max_body_bytes: int
    max_job_bytes: int
    max_result_bytes: int
    max_upload_lines: int
    max_upload_bytes: int
    max_queued_bytes: int
    max_queued_jobs: int
    max_bulk_bytes: int
    max_top_k: int
    deadline_s: float
    max_deadline_s: float
    max_upload_deadline_s: float
    max_wait_s: float
    result_ttl_s: int


class Info(Answer):
    """Which model scores, and what may be asked of it."""

    service: ServiceName
    model: dict[str, Any] | None = Field(description="Of a living worker; null without one.")
    outputs: list[str]
    priorities: list[str]
    limits: Limits


class Queue(Answer):
    """What is accepted and not in a final state, the jobs being scored included."""

    jobs: int
    bytes: int
    max_jobs: int
    max_bytes: int


class RecentWork(Answer):
    """The last batches and interactive jobs of all living workers; null without any."""

    bytes_per_s: float | None = Field(description="Sum of the workers' smoothed speeds.")
    num_batches: int
    mean_batch_texts: float | None
    mean_batch_bytes: float | None
    mean_batch_ms: float | None = Field(description="Mean compute time of a batch.")
    num_latencies: int
    latency_p50_ms: float | None = Field(description="Median, from the POST to the stored result.")
    latency_p95_ms: float | None


class Bulk(Answer):
    """What batches take up."""

    batches: int = Field(description="Batches accepted and not ended.")
    lines: int = Field(description="Their lines that have not ended.")
    bytes: int = Field(description="Text bytes accepted and not ended.")
    max_bytes: int
    redis_bytes: int = Field(description="Memory of Redis, for everything.")
    max_redis_bytes: int = Field(description="Above which batches are refused.")


class Stats(Answer):
    """How much waits, who works on it, and what has been done."""

    queue: Queue
    recent: RecentWork
    batches: Bulk
    workers: list[dict[str, Any]] = Field(description="What each living worker tells of itself.")
    totals: dict[str, int] = Field(
        description="Ended jobs by outcome since the data folder was made."
    )
