"""The size of a result is bounded from the request alone, and not far above what it comes to."""

import orjson
import pytest

from app.requests.intake import to_job
from contract.grammar.result_size import result_bytes
from contract.settings import load_settings
from model.scorer import Scorer
from model.scoring.request import ScoreRequest
from tests.service import TINY_CHECKPOINT

PROSE = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n" * 4
ASKED = {
    "bytes": {"text": PROSE, "outputs": ["bytes", "curvature"]},
    "top_k": {"text": PROSE, "outputs": ["top_k"], "top_k": 320},
    "words": {"text": PROSE, "spans": "words"},
    "words-of-bytes": {"text_b64": "IGEg" * 50, "spans": "words"},
    "lines": {"text": "\n" * 200, "spans": "lines"},
    "characters": {"text_b64": "/wD/" * 50, "spans": "characters"},
    "ranges": {"text": "a", "spans": [[0, 1]] * 200},
    "ranges-of-continuations": {"continuations": ["a", "b"] * 9, "spans": [[0, 1], [1, 1]] * 50},
    "next_chars": {"text": "a", "next_chars": 100},
    "window": {
        "text": PROSE * 2,
        "outputs": ["bytes"],
        "window": {"size": 192, "stride": 64},
    },
    "window-stride-over-size": {"text": PROSE * 8, "window": {"size": 64, "stride": 9999}},
    "continuations": {
        "context": PROSE,
        "continuations": ["a", "bc"] * 40,
        "outputs": ["bytes", "top_k"],
    },
}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(str(TINY_CHECKPOINT))


@pytest.mark.parametrize("fields", ASKED.values(), ids=ASKED)
def test_result_is_within_its_bound_and_near_it(scorer, fields):
    [request] = to_job(fields, load_settings({}), now=0.0, request_id="").requests
    [result] = scorer.score([ScoreRequest.from_json(request)])
    num_bytes = len(orjson.dumps(result))
    assert num_bytes < result_bytes(request) < 3 * num_bytes + 2048


def test_custom_id_of_control_characters_is_within_the_bound():
    custom_id = "\1" * 128
    fields = {"text": "a", "custom_id": custom_id}
    assert len(orjson.dumps({"index": 10**9, **fields})) + 384 < result_bytes(fields)
