"""The API's description: complete, consistent with the routes, and of the version it claims."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.errors import STATUS_BY_CODE
from app.factory import create_app
from app.openapi import describe
from contract.settings import load_settings

# Pages for people; they are not part of the API.
PAGES = {"/status", "/static/{version}/{name}", "/docs/", "/docs/{path}", "/openapi.json"}


@pytest.fixture(scope="module")
def app():
    app = create_app(load_settings({"EVASCORE_REDIS_URL": "redis://127.0.0.1:1/0"}))
    yield app
    app.extensions["evascore"].endings.close()


@pytest.fixture(scope="module")
def document(app) -> dict[str, Any]:
    return json.loads(json.dumps(describe(app)))


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
    for operation in described:
        for parameter in operation["parameters"]:
            assert parameter["in"] in ("path", "query", "header")
            assert parameter["schema"]["type"]


def test_document_is_openapi_3_1(document):
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"]
