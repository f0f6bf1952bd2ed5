"""A new output is one entry in `contract/grammar/outputs.py` and its computation.

Each test is made from that table and names the place that does not know an output yet.
"""

import re

import orjson
import pytest

from app.responses.models import Scores
from contract.grammar.checked_text import check_text
from contract.grammar.limits import DEFAULT_LIMITS
from contract.grammar.outputs import OUTPUTS, SUMMARY, UNITS, Output
from contract.grammar.result_size import result_bytes
from contract.settings import REPOSITORY
from model import Scorer, ScoreRequest
from tests.service import TINY_CHECKPOINT

API_DOCUMENT = (REPOSITORY / "docs" / "api.md").read_text()
# The summary's fields stand in the result itself.
NAMED = [output for output in OUTPUTS if output is not SUMMARY]
TEXTS = ("a", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n" * 4)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(str(TINY_CHECKPOINT))


def checked(output: Output, text: str) -> dict:
    return check_text({"text": text, "outputs": [output.name]}, DEFAULT_LIMITS).request


def result_of(scorer: Scorer, output: Output, text: str) -> dict:
    [result] = scorer.score([ScoreRequest.from_json(checked(output, text))])
    return result


@pytest.mark.parametrize("output", NAMED, ids=lambda output: output.name)
def test_output_is_computed_under_its_name(scorer, output):
    assert output.name in result_of(scorer, output, TEXTS[1]), (
        f"model/scoring/results.py computes no {output.name}"
    )


@pytest.mark.parametrize("output", NAMED, ids=lambda output: output.name)
def test_output_stands_in_the_result_of_the_empty_text(scorer, output):
    fields = {"text": "", "next_chars": 1, "outputs": [output.name]}
    request = check_text(fields, DEFAULT_LIMITS).request
    [result] = scorer.score([ScoreRequest.from_json(request)])
    assert output.name in result, (
        f"to_empty_result in model/scoring/results.py leaves out {output.name}"
    )


@pytest.mark.parametrize("text", TEXTS, ids=["short", "long"])
@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.name)
def test_output_keeps_to_the_size_in_its_entry(scorer, output, text):
    alone = result_of(scorer, SUMMARY, text)
    added = {name: v for name, v in result_of(scorer, output, text).items() if name not in alone}
    shown = added if output is not SUMMARY else alone
    request = checked(output, text)
    limit_bytes = output.json_bytes(len(text.encode()), request.get("top_k", 0))
    assert len(orjson.dumps(shown)) <= limit_bytes, f"json_bytes of {output.name} is too small"
    assert limit_bytes < result_bytes(request), f"result_bytes leaves out {output.name}"


@pytest.mark.parametrize("output", NAMED, ids=lambda output: output.name)
def test_answer_model_describes_the_output(output):
    field = Scores.model_fields.get(output.name)
    assert field is not None, f"app/responses/models.py: Scores has no field {output.name}"
    assert f"`{output.name}`" in (field.description or ""), (
        f"app/responses/models.py: the description of {output.name} does not name its output"
    )


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.name)
def test_document_of_the_api_explains_the_output(output):
    rows = re.findall(rf"^\|.*`{output.name}[`.].*\|", API_DOCUMENT, re.MULTILINE)
    # Where it is asked for, and, unless its fields stand in the result itself, what it gives.
    wanted = 1 if output is SUMMARY else 2
    assert len(rows) >= wanted, f"docs/api.md needs {wanted} rows that name {output.name}"


@pytest.mark.parametrize("unit", UNITS)
def test_document_of_the_api_names_the_unit(unit):
    assert f"`{unit}`" in API_DOCUMENT, f"docs/api.md does not name {unit}"
