"""What the service answers, as frozen objects; units and names are those of docs/api.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from evascore.errors import ServiceError, UnexpectedAnswer, error_from_problem

FINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
FINAL_STATUSES = frozenset({"completed", "failed", "expired", "cancelled"})

_T = TypeVar("_T", bound="Answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What all answers share: the JSON as it came, with fields that this client does not know."""

    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteScores(Answered):
    """One number per scored byte in each list."""

    log_prob_nats: list[float]
    """ln p(byte given all bytes before it)."""
    rank: list[int]
    """1 where no byte was likelier."""
    entropy_bits: list[float]
    """Entropy of the model's prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextChars(Answered):
    """The likeliest characters after a text; the four parts add up to 1."""

    characters: list[tuple[str, float]]
    """Each with its probability, likeliest first."""
    other: float
    invalid: float
    undecided: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Answered):
    """The score of the bytes `start` to `end` of a text, the end exclusive."""

    start: int
    end: int
    num_bytes: int
    log_likelihood_nats: float
    """ln p(span given the text before it)."""
    bits_per_byte: float | None
    """None for an empty span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Answered):
    """The bytes `start` to `end` of a text were scored given those from `context_from` on."""

    start: int
    end: int
    context_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Answered):
    """The score of one text; bits elsewhere than in `_nats`."""

    num_bytes: int
    num_chars: int | None
    """None if the bytes are not UTF-8."""
    log_likelihood_nats: float
    """ln p(text)."""
    bits_per_byte: float
    byte_perplexity: float | None
    """2 ** bits_per_byte; None beyond the range of a float."""
    is_greedy: bool
    """Whether each byte was the likeliest at its place."""
    bytes: ByteScores | None = None
    """With the output `bytes`."""
    top_k: list[list[tuple[int, float]]] | None = None
    """With the output `top_k`: per byte the likeliest, as (byte, log_prob_nats)."""
    curvature: float | None = None
    """With the output `curvature`."""
    next_chars: NextChars | None = None
    """With the option `next_chars`."""
    spans: list[Span] | None = None
    """With the option `spans`, in the order of the text or of the ranges."""
    windows: list[Window] | None = None
    """With the option `window`."""
    custom_id: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    """Name, revision, quantization, dtype and backend of the model."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    batch: Mapping[str, int] = field(default_factory=dict)
    """Texts and bytes of the batch in which it was scored."""
    usage: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Answered):
    """A job as it was when it was last heard of."""

    id: str
    state: str
    """QUEUED, STARTED, SUCCESS, FAILURE or REVOKED."""
    submitted_at: str | None = None
    deadline_at: str | None = None
    finished_at: str | None = None
    num_texts: int | None = None
    num_bytes: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether the state is one that stays."""
        return self.state in FINAL_STATES

    @property
    def error(self) -> ServiceError | None:
        """Why it was not scored, in the states FAILURE and REVOKED."""
        problem = self.raw.get("error")
        return error_from_problem(problem) if problem else None

    def outcomes(self) -> list[Score | ServiceError]:
        """What became of each of its texts, in order.

        Raises:
            ServiceError: of the job as a whole, or it is not final yet.
        """
        result = self._result()
        items = result.get("items")
        return [outcome(result)] if items is None else [_item(item, result) for item in items]

    def score(self) -> Score:
        """The score of a job of one text.

        Raises:
            ServiceError: it has none.
        """
        return score(self._result())

    def continuations(self) -> list[Score]:
        """The scores of the continuations of a job that has a context and several of them.

        Raises:
            ServiceError: it has none.
        """
        return _continuations(self._result())

    def _result(self) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        if self.state != "SUCCESS":
            raise UnexpectedAnswer(f"the job is {self.state}: it has no result yet")
        return dict(_get(self.raw, "result"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts(Answered):
    """Lines of a batch."""

    total: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Answered):
    """A batch as it was when it was last heard of."""

    id: str
    status: str
    """validating, in_progress, finalizing, completed, failed, expired, cancelling, cancelled."""
    request_counts: Counts
    created_at: str | None = None
    in_progress_at: str | None = None
    completed_at: str | None = None
    expires_at: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the status is one that stays."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True, slots=True, kw_only=True)
class Line(Answered):
    """The outcome of one line of a batch."""

    index: int
    """Number of the line, from 0."""
    status: str
    """SUCCESS, FAILURE or REVOKED."""
    custom_id: str | None = None

    @property
    def outcome(self) -> Score | ServiceError:
        """Its score, or why it has none."""
        result = self.raw.get("result")
        return outcome(self.raw if result is None else {"custom_id": self.custom_id, **result})

    def continuations(self) -> list[Score]:
        """The scores of a line that has a context and several continuations.

        Raises:
            ServiceError: it has none.
        """
        if "error" in self.raw:
            raise error_from_problem(self.raw["error"])
        return _continuations(_get(self.raw, "result"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Info(Answered):
    """What the service scores with, and what may be asked of it."""

    service: Mapping[str, Any]
    model: Mapping[str, Any] | None
    """None while no worker lives."""
    outputs: list[str]
    limits: Mapping[str, float]


def id_of(named: Job | Batch | str) -> str:
    """The ID of what may be given by its ID alone."""
    return named if isinstance(named, str) else named.id


def job(told: Mapping[str, Any]) -> Job:
    """A job of its JSON."""
    return _of(Job, told)


def batch(told: Mapping[str, Any]) -> Batch:
    """A batch of its JSON."""
    return _of(Batch, told, request_counts=_of(Counts, _get(told, "request_counts")))


def line(told: Mapping[str, Any]) -> Line:
    """A line of a batch's results of its JSON."""
    return _of(Line, told)


def info(told: Mapping[str, Any]) -> Info:
    """The service's description of its JSON."""
    return _of(Info, told)


def score(told: Mapping[str, Any]) -> Score:
    """A score of its JSON; the score of one continuation is that of a text."""
    several = told.get("continuations", ())
    if len(several) == 1:
        told = {**told, **several[0]}
    elif several:
        raise UnexpectedAnswer(f"it has {len(several)} scores; continuations() gives them")
    per_byte, next_chars, top_k = told.get("bytes"), told.get("next_chars"), told.get("top_k")
    return _of(
        Score,
        told,
        bytes=_of(ByteScores, per_byte) if per_byte else None,
        next_chars=_next_chars(next_chars) if next_chars else None,
        spans=_each(Span, told.get("spans")),
        windows=_each(Window, told.get("windows")),
        top_k=[[(b, p) for b, p in likeliest] for likeliest in top_k] if top_k else None,
    )


def outcome(told: Mapping[str, Any]) -> Score | ServiceError:
    """The score in a JSON object that holds one, or the error."""
    return error_from_problem(told["error"]) if told.get("error") else score(told)


def _continuations(result: Mapping[str, Any]) -> list[Score]:
    return [score(part) for part in _get(result, "continuations")]


def _item(item: Mapping[str, Any], result: Mapping[str, Any]) -> Score | ServiceError:
    """One of several items; how the whole job came about holds for each."""
    shared = {name: result[name] for name in ("model", "timings_ms", "batch") if name in result}
    named = {name: item[name] for name in ("custom_id", "error") if name in item}
    return outcome({**shared, **(item.get("result") or {}), **named})


def _next_chars(told: Mapping[str, Any]) -> NextChars:
    characters = [(character, p) for character, p in _get(told, "characters")]
    return _of(NextChars, told, characters=characters)


def _each(kind: type[_T], told: list[Any] | None) -> list[_T] | None:
    return None if told is None else [_of(kind, one) for one in told]


def _of(kind: type[_T], told: Any, **made: Any) -> _T:
    """An object of the fields of `told` that `kind` knows; `made` in place of some."""
    try:
        known = {f.name: told[f.name] for f in fields(kind) if f.name in told}
        return kind(**{**known, **made, "raw": told})
    except TypeError as error:
        raise UnexpectedAnswer(f"the answer holds no complete {kind.__name__}") from error


def _get(told: Mapping[str, Any], name: str) -> Any:
    try:
        return told[name]
    except KeyError:
        raise UnexpectedAnswer(f"the answer has no {name}") from None
