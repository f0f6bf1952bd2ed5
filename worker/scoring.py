"""One outcome per text, whatever happens: a failing batch is halved until the culprit is alone."""

from collections.abc import Callable, Sequence
from typing import Any

from contract.errors import OutOfMemory, ScoringFailed, ServiceError
from contract.logs import get_logger
from model.canary import score_canary
from model.errors import OutOfMemory as ModelOutOfMemory
from model.scorer import Scorer
from model.scoring.request import ScoreRequest

log = get_logger(__name__)


class ModelBroken(Exception):
    """The model fails on a plain text too: this process cannot score any more."""


def score_texts(
    scorer: Scorer,
    texts: Sequence[ScoreRequest],
    *,
    on_pass: Callable[[int], None],
    on_out_of_memory: Callable[[], None],
) -> list[dict[str, Any] | ServiceError]:
    """Score a batch; a text that cannot be scored gets its error, its batch mates their scores.

    Args:
        on_pass: called after each forward pass, with its number of bytes.
        on_out_of_memory: called when the batch did not fit, before it is halved.

    Raises:
        ModelBroken: not the text is at fault; the jobs are to be given back.
    """
    try:
        return list(scorer.score(texts, on_pass=on_pass))
    except ModelOutOfMemory:
        on_out_of_memory()
        failure: ServiceError = OutOfMemory(
            "The text does not fit the worker's memory even alone; split it, or send it later."
        )
    except Exception as error:  # noqa: BLE001 - the edge where any failure becomes an outcome
        # The message may quote what it was given: only the kind of error is told.
        log.error("scoring_failed", error=type(error).__name__, batch_texts=len(texts))
        failure = ScoringFailed(
            "The model failed on this text; if others pass, report it to the operator."
        )
        failure.__cause__ = error
    if len(texts) == 1:
        _check_model(scorer)
        return [failure]
    middle = len(texts) // 2
    return [
        outcome
        for half in (texts[:middle], texts[middle:])
        for outcome in score_texts(scorer, half, on_pass=on_pass, on_out_of_memory=on_out_of_memory)
    ]


def _check_model(scorer: Scorer) -> None:
    try:
        score_canary(scorer)
    except Exception as error:
        raise ModelBroken(type(error).__name__) from error
