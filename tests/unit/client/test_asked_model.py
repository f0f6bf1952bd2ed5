"""The model and other options of a request, in every operation that submits texts."""

import json

import pytest

from evascore.operations.api import Operations
from evascore.operations.calls import batch_request
from evascore.operations.retrying import Call
from evascore.texts import Text

CALL = Call.begin(timeout_s=1, patience_s=1)
SENT = {
    "none": (Operations(), {}, None),
    "of the client": (Operations("mine"), {}, "mine"),
    "of the call": (Operations(), {"model": "theirs"}, "theirs"),
    "of both": (Operations("mine"), {"model": "theirs"}, "theirs"),
}


@pytest.mark.parametrize(("operations", "options", "asked"), SENT.values(), ids=SENT)
def test_the_model_of_a_call_goes_before_that_of_the_client(operations, options, asked):
    sent = next(operations.submit({"text": "a", **options}, CALL, key=None))
    assert json.loads(sent.body).get("model") == asked

    sent = next(operations.submit_batch(batch_request(["a"], options), CALL, key=None))
    assert sent.params.get("model") == asked


@pytest.mark.parametrize("texts", [[Text("a")], [Text("a"), Text("b")]], ids=len)
@pytest.mark.parametrize(("model", "asked"), [(None, "mine"), ("theirs", "theirs")])
def test_a_model_is_asked_for_once_in_a_job_of_many_texts(texts, model, asked):
    sent = next(Operations("mine").outcomes(texts, CALL, model))
    body = json.loads(sent.body)
    assert body["model"] == asked
    assert not any("model" in item for item in body.get("items", []))


def test_options_of_the_request_that_all_texts_share_are_asked_for_once():
    bulk = {"priority": "bulk", "deadline_s": 9, "spans": "words"}
    texts = [Text("a", options=bulk), Text("b", options={**bulk, "deadline_s": 8})]
    body = json.loads(next(Operations().outcomes(texts, CALL)).body)
    assert body == {
        "priority": "bulk",
        "items": [
            {"text": "a", "deadline_s": 9, "spans": "words"},
            {"text": "b", "deadline_s": 8, "spans": "words"},
        ],
    }
