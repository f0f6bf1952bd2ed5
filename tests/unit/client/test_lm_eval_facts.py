"""lm-eval's model reads the limits of the model that is asked for, or says that it is not there."""

import pytest

from evascore.errors import ModelNotFound, WorkerUnavailable
from evascore.lm_eval.facts import facts_of
from evascore.results import info

LISTED = {"id": "small", "name": "small", "fingerprint": "f" * 12, "max_text_bytes": 64}
DEFAULT = {"name": "large", "max_text_bytes": 128}


def served(model=DEFAULT):
    known = {"service": {}, "outputs": [], "priorities": [], "limits": {}}
    return info({**known, "model": model, "models": [LISTED]})


@pytest.mark.parametrize(
    ("asked", "max_text_bytes"),
    [(None, 128), ("evascore", 128), ("small", 64), (f"small@{'f' * 12}", 64)],
)
def test_facts_are_those_of_the_model_that_is_asked_for(asked, max_text_bytes):
    assert facts_of(served(), asked)["max_text_bytes"] == max_text_bytes


def test_model_that_is_not_served_is_not_found():
    with pytest.raises(ModelNotFound, match="It serves: small"):
        facts_of(served(), "other")


def test_service_without_a_worker_is_reported_as_that():
    with pytest.raises(WorkerUnavailable, match="has no worker"):
        facts_of(served(model=None), None)
