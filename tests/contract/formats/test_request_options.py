"""A new request option is one field of the request's model; these tests name who misses it."""

import re
from dataclasses import fields

import pytest

from app.openapi.parameters import PARAMETERS
from app.requests.models import ScoreBody
from app.requests.query import QUERY_FORMS
from contract.grammar.schema_rules import CONTEXT_FIELDS, SCORED_FIELDS
from contract.grammar.text_request import TextRequest
from contract.settings import REPOSITORY
from model import ScoreRequest

API_DOCUMENT = (REPOSITORY / "docs" / "api.md").read_text()
TEXTS = (*SCORED_FIELDS, *CONTEXT_FIELDS)
OPTIONS = [name for name in ScoreBody.model_fields if name not in (*TEXTS, "items")]
# A name that comes back, and what `spans` of the model contains.
NOT_FOR_THE_MODEL = {"custom_id", "span_unit"}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_can_stand_in_the_query(option):
    assert option in QUERY_FORMS, f"app/requests/query.py: QUERY_FORMS has no {option}"
    assert option in PARAMETERS


@pytest.mark.parametrize("field", sorted({n.removesuffix("_b64") for n in ScoreBody.model_fields}))
def test_document_of_the_api_has_a_row_for_the_field(field):
    assert re.search(rf"^\|.*`{field}`.*\|", API_DOCUMENT, re.MULTILINE), (
        f"docs/api.md has no row for {field}"
    )


@pytest.mark.parametrize("field", ScoreBody.model_fields)
def test_field_is_described(field):
    assert ScoreBody.model_fields[field].description, f"{field} has no description"


@pytest.mark.parametrize(
    "option", [n for n in TextRequest.model_fields if n not in (*TEXTS, *NOT_FOR_THE_MODEL)]
)
def test_model_takes_the_option(option):
    taken = {field.name for field in fields(ScoreRequest)}
    assert option in taken, f"model/scoring/request.py: ScoreRequest has no {option}"
