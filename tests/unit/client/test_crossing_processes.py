"""Errors, texts and scores survive copying, pickling and another process."""

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest

import evascore
from evascore.errors import ServiceError, TimedOut, error_from_problem
from evascore.results import score
from evascore.texts import Text
from tests.error_classes import classes_of_errors

PROBLEM = {
    "type": "made_up",
    "detail": "The queue is full.",
    "status": 503,
    "retryable": True,
    "request_id": "abc",
    "errors": [{"detail": "is too large", "pointer": "/text"}],
}


def pickled(one, protocol=pickle.DEFAULT_PROTOCOL):
    return pickle.loads(pickle.dumps(one, protocol))  # noqa: S301 - our own bytes


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {p}": partial(pickled, protocol=p) for p in range(pickle.HIGHEST_PROTOCOL + 1)},
}


def made(kind):
    """An error of a class, with all that it can carry."""
    if issubclass(kind, ServiceError):
        return kind({**PROBLEM, "type": kind.code}, 2.5)
    return kind("Timed out.", "abc") if issubclass(kind, TimedOut) else kind("It failed.")


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", classes_of_errors(), ids=lambda kind: kind.__name__)
def test_copy_of_an_error_is_the_same_error(kind, copied):
    error = made(kind)
    error.add_note("while scoring")

    again = copied(error)

    assert type(again) is kind
    assert (str(again), again.args) == (str(error), error.args)
    assert vars(again) == vars(error)
    assert again.__notes__ == ["while scoring"]


def test_copy_of_an_error_with_a_code_of_a_newer_service_keeps_the_code():
    again = pickled(error_from_problem(PROBLEM, 7))
    assert (again.type, again.status, again.retry_after_s) == ("made_up", 503, 7)
    assert (again.is_retryable, again.request_id) == (True, "abc")
    assert again.errors == PROBLEM["errors"]


def fail():
    raise error_from_problem({"type": "text_too_large", "limit_bytes": 5}, 3)


def test_error_of_a_worker_process_ends_the_call_that_waits_for_it():
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        future = pool.submit(fail)
        with pytest.raises(evascore.TextTooLarge) as raised:
            future.result(timeout=60)
    assert raised.value.problem["limit_bytes"] == 5
    assert raised.value.retry_after_s == 3


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_texts_and_scores_can_be_copied(copied):
    reply = {
        "num_bytes": 1,
        "num_chars": 1,
        "log_likelihood_nats": -1.0,
        "bits_per_byte": 1.4,
        "byte_perplexity": 2.7,
        "is_greedy": False,
        "later": 1,
    }
    for one in (Text(b"\xff", context="a", options={"spans": "words"}), score(reply)):
        assert copied(one) == one
    assert copied(score(reply)).raw == reply
