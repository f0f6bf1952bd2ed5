"""What the web tier accepts is what the model takes, field by field and byte by byte."""

import base64

import pytest

from app.intake import to_job
from app.schemas import MAX_TOP_K, OUTPUTS, TextRequest
from contract.settings import load_settings
from model import request
from model.request import ScoreRequest
from model.vocabulary import VOCABULARY_SIZE


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


ACCEPTED = {
    "text": {"text": "x"},
    "nul": {"text": "\0"},
    "bytes": {"text_b64": b64(b"\xff\x00")},
    "null-is-absent": {"text": "x", "text_b64": None, "items": None, "outputs": None},
    "outputs": {"text": "x", "outputs": ["summary", "bytes", "curvature"]},
    "top_k": {"text": "x", "outputs": ["top_k"], "top_k": 320},
    "top_k-default": {"text": "x", "outputs": ["top_k"]},
    "custom_id": {"text": "x", "custom_id": "ä" * 128},
    "continuation": {"context": "a", "continuation": "b"},
    "continuation-alone": {"continuation": "b"},
    "empty-context": {"context": "", "continuation": "b"},
    "mixed-forms": {"context_b64": b64(b"\xff"), "continuations": ["b", "c"]},
    "continuations-b64": {"context": "a", "continuations_b64": [b64(b"\xff")]},
    "items": {"items": [{"text": "x", "custom_id": "1"}, {"context": "a", "continuation": "b"}]},
    "items-share-options": {"items": [{"text": "x"}], "outputs": ["top_k"], "top_k": 7},
}


@pytest.mark.parametrize("fields", ACCEPTED.values(), ids=ACCEPTED)
def test_model_takes_what_intake_takes_and_counts_the_same_bytes(fields):
    job = to_job(fields, load_settings({}), now=0.0, request_id="")
    requests = [ScoreRequest.from_json(request) for request in job.requests]
    assert sum(request.num_bytes for request in requests) == job.num_bytes


def test_both_tiers_know_the_same_fields_and_outputs():
    assert set(TextRequest.model_fields) == request.FIELDS
    assert OUTPUTS == request.OUTPUTS
    assert MAX_TOP_K == VOCABULARY_SIZE
