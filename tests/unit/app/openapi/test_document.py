"""The API's description: complete, consistent with the routes, and of the version it claims."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.factory import create_app
from app.openapi import document as document_module
from app.openapi.document import Description, describe
from app.responses.problems import STATUS_BY_CODE
from contract.errors import ClientError
from contract.grammar.completion_request import CompletionBody, prompts_of
from contract.grammar.validation import validated
from contract.settings import load_settings

# Pages for people; they are not part of the API.
PAGES = {"/status", "/static/{version}/{name}", "/docs/", "/docs/{name}", "/openapi.json"}


SETTINGS = load_settings(
    {"EVASCORE_REDIS_URL": "redis://127.0.0.1:1/0", "EVASCORE_MAX_UPLOAD_DEADLINE_S": "99999"}
)


@pytest.fixture(scope="module")
def app():
    app = create_app(SETTINGS)
    yield app
    app.extensions["evascore"].changes.close()


@pytest.fixture(scope="module")
def document(app) -> dict[str, Any]:
    return json.loads(json.dumps(describe(app, SETTINGS, ["evascore", "demo"])))


@pytest.fixture
def made(monkeypatch) -> list[Any]:
    """What documents are made of from now on."""
    calls: list[Any] = []

    def counted(*args):
        calls.append(args)
        return describe(*args)

    monkeypatch.setattr(document_module, "describe", counted)
    return calls


def test_document_is_made_once_while_limits_and_models_are_the_same(app, made):
    described = Description(app)
    first = described.read(SETTINGS, ["evascore"], "")
    same = described.read(SETTINGS.model_copy(), ["evascore"], "/below")
    assert len(made) == 1
    assert first == describe(app, SETTINGS, ["evascore"])
    assert same == describe(app, SETTINGS, ["evascore"], "/below")
    smaller = SETTINGS.model_copy(update={"max_text_bytes": 7})
    for settings, models in ((smaller, ["evascore"]), (smaller, ["evascore", "demo"])):
        assert described.read(settings, models, "") == describe(app, settings, models)
    assert len(made) == 3


def test_requests_share_one_document(made):
    app = create_app(SETTINGS)
    answers = [app.test_client().get("/openapi.json") for _ in range(3)]
    app.extensions["evascore"].changes.close()
    assert [each.status_code for each in answers] == [200] * 3
    assert answers[0].get_json() == json.loads(json.dumps(describe(app, SETTINGS)))
    assert len(made) == 1


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from references(child)


def test_every_route_is_described_with_its_methods(app, document):
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described == {(path, method) for path, method in served if path not in PAGES}


def test_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]
    found = set(references(document))
    assert found
    assert {reference.removeprefix("#/components/schemas/") for reference in found} <= set(schemas)


def test_declared_problems_name_codes_of_their_status(document):
    for item in document["paths"].values():
        for described in item.values():
            for status, response in described["responses"].items():
                if "application/problem+json" in response.get("content", {}):
                    codes = response["description"].split(", ")
                    assert {STATUS_BY_CODE[code] for code in codes} == {int(status)}


def test_every_operation_has_an_id_of_its_own_a_summary_and_described_parameters(document):
    described = [o for item in document["paths"].values() for o in item.values()]
    assert len({o["operationId"] for o in described}) == len(described)
    assert all(o["summary"].endswith(".") for o in described)
    # Swagger UI shows a summary as plain text.
    assert not [o["summary"] for o in described if "`" in o["summary"]]
    for operation in described:
        for parameter in operation["parameters"]:
            assert parameter["in"] in ("path", "query", "header")
            assert parameter["schema"]["type"]


def test_every_link_leads_to_an_operation_and_names_its_parameter(document):
    operations = {
        operation["operationId"]: operation
        for item in document["paths"].values()
        for operation in item.values()
    }
    links = [
        link
        for operation in operations.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert links
    for link in links:
        (parameter,) = link["parameters"]
        target = operations[link["operationId"]]
        assert parameter in {p["name"] for p in target["parameters"] if p["in"] == "path"}


def test_limits_are_those_of_the_settings_and_of_the_workers(document):
    schemas = document["components"]["schemas"]
    window, body = schemas["SlidingWindow"]["properties"], schemas["ScoreBody"]["properties"]
    assert window["size"]["maximum"] == SETTINGS.max_text_bytes
    assert body["items"]["maxItems"] == SETTINGS.max_items
    deadlines = {
        path: parameter["schema"]["maximum"]
        for path in ("/score", "/batches")
        for parameter in document["paths"][path]["post"]["parameters"]
        if parameter["name"] == "deadline_s"
    }
    assert deadlines == {"/score": SETTINGS.max_deadline_s, "/batches": 99999}


MODELS = {
    "demo": True,
    "evascore": True,
    "demo@0123456789ab": True,
    "owner/other@0123456789ab": True,
    "other": False,
    "demo@": False,
    "demo@0123456789AB": False,
    "@0123456789ab": False,
}


@pytest.mark.parametrize(("name", "is_described"), MODELS.items())
def test_models_are_described_as_listed_names_or_with_a_fingerprint(document, name, is_described):
    schemas = document["components"]["schemas"]
    of_bodies = [
        schemas[body]["properties"]["model"]
        for body in ("ScoreBody", "CompletionBody", "TokenizeBody", "DetokenizeBody")
    ]
    of_queries = [
        parameter["schema"]
        for path in ("/score", "/batches")
        for parameter in document["paths"][path]["post"]["parameters"]
        if parameter["name"] == "model"
    ]
    assert len(of_queries) == 2
    for schema in of_bodies + of_queries:
        assert Draft202012Validator(schema).is_valid(name) == is_described
    assert [Draft202012Validator(schema).is_valid(None) for schema in of_bodies] == [True] * 4


PROMPTS = {
    "empty": ("", 1),
    "text": ("a", 0),
    "texts": (["a", ""], 1),
    "ids": ([64, 319], 0),
    "begin-of-text": ([1], 1),
    "begin-of-text-and-more": ([1, 64], 0),
    "no-ids": ([[]], 1),
    "mixed": (["a", [64.0], [1, 65]], 0),
    "number": (5, None),
    "no-prompts": ([], None),
    "special-id": ([2], None),
    "begin-of-text-twice": ([1, 1], None),
    "id-beyond": ([320], None),
    "nested": ([[[64]]], None),
}


@pytest.mark.parametrize(("prompt", "needed_tokens"), PROMPTS.values(), ids=PROMPTS)
def test_prompts_are_described_as_they_are_taken(document, prompt, needed_tokens):
    """`needed_tokens`: what may not be less, for the empty text has no score; None: never taken."""
    schema = {"$ref": "#/components/schemas/CompletionBody", "components": document["components"]}
    described = Draft202012Validator(schema)
    for max_tokens in (0, 1):
        fields = {"prompt": prompt, "max_tokens": max_tokens, "echo": True, "temperature": 0}
        is_taken = needed_tokens is not None and max_tokens >= needed_tokens
        assert described.is_valid(fields) == is_taken
        try:
            prompts_of(
                validated(fields, CompletionBody),
                max_items=SETTINGS.max_items,
                max_text_bytes=SETTINGS.max_text_bytes,
            )
            assert is_taken
        except ClientError:
            assert not is_taken


def test_document_is_openapi_3_1(document):
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"]
