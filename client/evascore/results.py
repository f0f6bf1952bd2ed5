"""Parses the answers of the service into frozen dataclasses; docs/api.md names fields and units."""

import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from evascore.characters import Character, characters
from evascore.errors import NotInResult, ServiceError, UnexpectedAnswer, error_from_problem
from evascore.json_objects import (
    BatchLinks,
    JobLinks,
    Limits,
    ListedModel,
    MicroBatch,
    Model,
    ServiceName,
    Timings,
    Usage,
)
from evascore.notebook import frames, html
from evascore.wording import counted

if TYPE_CHECKING:
    import pandas as pd

JobState = Literal["QUEUED", "STARTED", "SUCCESS", "FAILURE", "REVOKED"]
LineStatus = Literal["SUCCESS", "FAILURE", "REVOKED"]
BatchStatus = Literal[
    "validating", "in_progress", "cancelling", "completed", "expired", "cancelled"
]
FINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
FINAL_STATUSES = frozenset({"completed", "expired", "cancelled"})

_T = TypeVar("_T", bound="Answered")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Answered:
    """Base of all answers: keeps the JSON, with fields that this client does not know."""

    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def __repr__(self) -> str:
        """The fields that have a value, in one line: lists and objects by their size or name."""
        shown = ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)
        given = (f"{name}={_short(value)}" for name, value in shown if value not in (None, {}))
        return f"{type(self).__name__}({', '.join(given)})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ByteScores(Answered):
    """Scores of single bytes; each list has one number per scored byte."""

    log_prob_nats: list[float]
    """ln p(byte given all bytes before it)."""
    rank: list[int]
    """1 where no byte was likelier."""
    entropy_bits: list[float]
    """Entropy of the model's prediction."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NextChars(Answered):
    """The likeliest characters after a text; their probabilities and the other three sum to 1."""

    characters: list[tuple[str, float]]
    """Characters with their probabilities, likeliest first."""
    other: float
    """Probability of all other characters that were examined."""
    invalid: float
    """Probability of bytes that are not UTF-8."""
    undecided: float
    """Probability of first bytes that were not followed to a whole character."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Span(Answered):
    """The score of the bytes `start` to `end` of a text, the end exclusive."""

    start: int
    end: int
    num_bytes: int
    log_likelihood_nats: float
    """ln p(span given the text before it)."""
    bits_per_byte: float | None
    """None for an empty span."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Window(Answered):
    """A sliding window: scored the bytes `start` to `end`, reading from `context_from` on."""

    start: int
    end: int
    context_from: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Score(Answered):
    """The score of one text; numbers are in bits unless the name says `_nats`."""

    num_bytes: int
    num_chars: int | None
    """None if the bytes are not UTF-8."""
    log_likelihood_nats: float
    """ln p(text)."""
    bits_per_byte: float | None
    """None for the empty text, which has a score only with the option `next_chars`."""
    byte_perplexity: float | None
    """2 ** bits_per_byte; None if that exceeds the range of a float."""
    is_greedy: bool
    """Whether each byte was the likeliest at its position."""
    bytes: ByteScores | None = None
    """Set by the output `bytes`."""
    top_k: list[list[tuple[int, float]]] | None = None
    """Set by the output `top_k`: the likeliest bytes at each position, as (byte, log_prob_nats)."""
    curvature: float | None = None
    """Set by the output `curvature`."""
    next_chars: NextChars | None = None
    """Set by the option `next_chars`."""
    spans: list[Span] | None = None
    """Set by the option `spans`, in the order of the text or of the ranges."""
    windows: list[Window] | None = None
    """Set by the option `window`."""
    custom_id: str | None = None
    model: Model = field(default_factory=Model)
    """The model that gave the score; empty in lines of a batch, which names its model itself."""
    timings_ms: Timings = field(default_factory=Timings, repr=False)
    batch: MicroBatch = field(default_factory=MicroBatch, repr=False)
    """Size of the micro-batch that scored it."""
    usage: Usage = field(default_factory=Usage, repr=False)
    scored_text: builtins.bytes | None = field(default=None, repr=False, compare=False)
    """The text, where this client has sent it and the score has `bytes` or `spans` of it."""

    def characters(self) -> Iterator[Character]:
        """The characters of the text with their bits.

        Raises:
            NotInResult: the score has no output `bytes`, or its text is not known.
        """
        if self.bytes is None or self.scored_text is None:
            raise NotInResult(
                'The score has no scores of characters; ask for outputs=["bytes"] in the call that'
                " scores the text."
            )
        return characters(self.scored_text, self.bytes.log_prob_nats)

    def to_frame(self) -> "pd.DataFrame":
        """Make a data frame of pandas with a row for each character, or for each of the `spans`.

        Raises:
            NotInResult: the score has neither `spans` nor the output `bytes`.
            PandasMissing
        """
        if self.spans is not None:
            return frames.spans_to_frame(self.spans, self.scored_text)
        return frames.characters_to_frame(self.characters())

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures, and the text in colours if its `bytes` are known."""
        has_map = self.bytes is not None and self.scored_text is not None
        return html.table(_figures(self)) + (html.heat_map(self.characters()) if has_map else "")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Job(Answered):
    """A job as it was when it was last read."""

    id: str
    state: JobState
    submitted_at: str | None = None
    deadline_at: str | None = None
    """After this time the job is not started any more."""
    finished_at: str | None = None
    """None while the job has not ended."""
    num_texts: int | None = None
    num_bytes: int | None = None
    """Bytes that the model reads for the job."""
    links: JobLinks

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL_STATES

    @property
    def error(self) -> ServiceError | None:
        """Why the job was not scored, in the states FAILURE and REVOKED."""
        problem = self.raw.get("error")
        return error_from_problem(problem) if problem else None

    def outcomes(self) -> list[Score | ServiceError]:
        """The score or the error of each text of the job, in order.

        Raises:
            ServiceError: the job failed as a whole.
            NotInResult: the job has not ended.
        """
        result = self._result()
        items = result.get("items")
        return [outcome(result)] if items is None else [_item(item, result) for item in items]

    def score(self) -> Score:
        """The score of a job of one text.

        Raises:
            ServiceError: the job failed.
            NotInResult: the job has not ended, or has several scores.
        """
        return score(self._result())

    def continuations(self) -> list[Score]:
        """The scores of a job of one context with several continuations, in order.

        Raises:
            ServiceError: the job failed.
            NotInResult: the job has not ended, or has no continuations.
        """
        return _continuations(self._result())

    def _result(self) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        if self.state != "SUCCESS":
            raise NotInResult(
                f"Job {self.id} is {self.state} and has no result yet; wait until it has ended."
            )
        return dict(_get(self.raw, "result"))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Counts(Answered):
    """Numbers of lines of a batch."""

    total: int
    completed: int
    """Lines that were scored."""
    failed: int
    """Lines that ended without a score."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Batch(Answered):
    """A batch as it was when it was last read; times are RFC 3339 in UTC."""

    id: str
    status: BatchStatus
    created_at: str
    deadline_at: str
    """After this time no line is started any more."""
    in_progress_at: str | None = None
    """When all of it was in the queue."""
    cancelling_at: str | None = None
    """When it was cancelled."""
    completed_at: str | None = None
    """When it ended, in whatever way."""
    expires_at: str | None = None
    """When its results will be deleted."""
    request_counts: Counts
    num_bytes: int
    """Bytes that the model reads for the batch."""
    model: Model | None = None
    """The model that gave the scores; None before the first score."""
    links: BatchLinks

    @property
    def is_final(self) -> bool:
        """Whether the batch has ended."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Line(Answered):
    """The outcome of one line of a batch."""

    index: int
    """Position of the line in the upload, from 0; blank lines do not count."""
    status: LineStatus
    custom_id: str | None = None

    @property
    def outcome(self) -> Score | ServiceError:
        """The score of the line, or the error that it ended with."""
        result = self.raw.get("result")
        return outcome(self.raw if result is None else {"custom_id": self.custom_id, **result})

    def continuations(self) -> list[Score]:
        """The scores of a line that has one context with several continuations, in order.

        Raises:
            ServiceError: the line was not scored.
            NotInResult: the line has no continuations.
        """
        if "error" in self.raw:
            raise error_from_problem(self.raw["error"])
        return _continuations(_get(self.raw, "result"))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Info(Answered):
    """The service, its model, and what a request may ask for."""

    service: ServiceName
    model: Mapping[str, Any] | None
    """What the worker reports of the default model; None while there is no worker."""
    models: list[ListedModel] = field(default_factory=list)
    """The models that workers serve; empty if the service is of release 0.1."""
    outputs: list[str]
    priorities: list[str]
    limits: Limits


def with_text(score: Score, text: str | bytes) -> Score:
    """Keep the text in a score that has results for parts of it."""
    if score.bytes is None and score.spans is None:
        return score
    return replace(score, scored_text=text.encode() if isinstance(text, str) else bytes(text))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{counted(len(value), 'item')}]"
    if isinstance(value, Mapping):
        return repr(value["name"]) if "name" in value else f"{{{counted(len(value), 'field')}}}"
    return repr(value)


def _figures(score: Score) -> Iterator[tuple[str, str]]:
    yield "log-likelihood", f"{score.log_likelihood_nats:.4f} nats"
    if score.bits_per_byte is not None:
        yield "bits per byte", f"{score.bits_per_byte:.4f}"
    if score.curvature is not None:
        yield "curvature", f"{score.curvature:.4f}"
    chars = "" if score.num_chars is None else f", {counted(score.num_chars, 'character')}"
    yield "length", f"{counted(score.num_bytes, 'byte')}{chars}"
    yield "model", str(score.model.get("name", ""))


def id_of(named: Job | Batch | str) -> str:
    """The ID of a job or batch, which may be given by its ID alone."""
    return named if isinstance(named, str) else named.id


def job(reply: Mapping[str, Any]) -> Job:
    """Parse a job."""
    return _of(Job, reply)


def batch(reply: Mapping[str, Any]) -> Batch:
    """Parse a batch."""
    return _of(Batch, reply, request_counts=_of(Counts, _get(reply, "request_counts")))


def line(reply: Mapping[str, Any]) -> Line:
    """Parse a line of a batch's results."""
    return _of(Line, reply)


def info(reply: Mapping[str, Any]) -> Info:
    """Parse the answer of /info."""
    return _of(Info, reply)


def score(reply: Mapping[str, Any]) -> Score:
    """Parse the score of a text, or of a context with one continuation.

    Raises:
        NotInResult: it has several continuations.
        UnexpectedAnswer: fields are missing.
    """
    several = reply.get("continuations", ())
    if len(several) == 1:
        reply = {**reply, **several[0]}
    elif several:
        raise NotInResult(f"The result has {len(several)} scores; read them with continuations().")
    per_byte, next_chars, top_k = reply.get("bytes"), reply.get("next_chars"), reply.get("top_k")
    return _of(
        Score,
        reply,
        bytes=None if per_byte is None else _of(ByteScores, per_byte),
        next_chars=None if next_chars is None else _next_chars(next_chars),
        spans=_each(Span, reply.get("spans")),
        windows=_each(Window, reply.get("windows")),
        top_k=None if top_k is None else [[(b, p) for b, p in likeliest] for likeliest in top_k],
    )


def outcome(reply: Mapping[str, Any]) -> Score | ServiceError:
    """Parse a JSON object that holds either a score or an error."""
    return error_from_problem(reply["error"]) if reply.get("error") else score(reply)


def _continuations(result: Mapping[str, Any]) -> list[Score]:
    if "continuations" not in result:
        raise NotInResult("The result has no continuations; read it as that of a single text.")
    return [score(part) for part in result["continuations"]]


def _item(item: Mapping[str, Any], result: Mapping[str, Any]) -> Score | ServiceError:
    """One of several items; the model and the times of the job are those of each item."""
    shared = {name: result[name] for name in ("model", "timings_ms", "batch") if name in result}
    named = {name: item[name] for name in ("custom_id", "error") if name in item}
    return outcome({**shared, **(item.get("result") or {}), **named})


def _next_chars(reply: Mapping[str, Any]) -> NextChars:
    characters = [(character, p) for character, p in _get(reply, "characters")]
    return _of(NextChars, reply, characters=characters)


def _each(kind: type[_T], reply: list[Any] | None) -> list[_T] | None:
    return None if reply is None else [_of(kind, one) for one in reply]


def _of(kind: type[_T], reply: Any, **made: Any) -> _T:
    """A `kind` with the fields of `reply` that it has; `made` replaces some of them."""
    try:
        known = {f.name: reply[f.name] for f in fields(kind) if f.name in reply}
        return kind(**{**known, **made, "raw": reply})
    except TypeError as error:
        raise UnexpectedAnswer(
            f"The answer is not a complete {kind.__name__}; are client and service of one version?"
        ) from error


def _get(reply: Mapping[str, Any], name: str) -> Any:
    try:
        return reply[name]
    except KeyError:
        raise UnexpectedAnswer(
            f"The answer has no field {name}; are client and service of one version?"
        ) from None
