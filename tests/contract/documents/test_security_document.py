"""docs/security.md and the table of scopes in docs/api.md agree with the code."""

import re

import pytest

from app.factory import create_app
from app.requests.access import scope_of
from app.server import request_log
from app.service.components import EXTENSION
from contract.api_keys import SCOPES
from contract.setting_refusals import environment_name
from contract.settings import REPOSITORY, Settings, load_settings

DOCUMENT = (REPOSITORY / "docs/security.md").read_text()
API = (REPOSITORY / "docs/api.md").read_text()


def cells(document: str, begin: str) -> list[list[str]]:
    """The cells of the rows of tables whose first cell begins with `begin`."""
    rows = [line.strip("| ").split(" | ") for line in document.splitlines() if line[:1] == "|"]
    return [row for row in rows if row[0].startswith(begin)]


def test_every_risk_of_owasp_is_answered_by_tests_that_exist():
    rows = cells(DOCUMENT, "API")
    assert [row[0].split()[0] for row in rows] == [f"API{number}" for number in range(1, 11)]
    for risk, _, tests in rows:
        named = re.findall(r"`(tests/\S+)`", tests)
        assert named, risk
        assert [name for name in named if not (REPOSITORY / name).is_file()] == []


def test_settings_that_it_names_are_settings():
    named = set(re.findall(r"\bEVASCORE_[A-Z_]+\b", DOCUMENT))
    assert named
    assert named <= {environment_name(field) for field in Settings.model_fields}


@pytest.mark.parametrize("field", [*request_log.AUDITED, "client", "request_id", "body_bytes"])
def test_fields_of_the_audit_are_documented(field):
    (row,) = cells(DOCUMENT, "`request_served`")
    assert f"`{field}`" in row[2]


def documented() -> dict[str, str]:
    """The scope of each path that the table of scopes names."""
    found = {}
    for scope in SCOPES:
        (row,) = [row for row in cells(API, f"`{scope}`") if len(row) == 2]
        found |= dict.fromkeys(re.findall(r"`(/\S*?)`", row[1]), scope)
    return found


def test_table_of_scopes_is_that_of_the_code():
    app = create_app(load_settings({"EVASCORE_REDIS_URL": "redis://127.0.0.1:1"}))
    app.extensions[EXTENSION].changes.close()
    needed = {rule.rule: scope_of(rule.endpoint) for rule in app.url_map.iter_rules()}
    reply = documented()
    for path, scope in needed.items():
        bases = [base for base in reply if path == base or path.startswith(f"{base}/")]
        assert [reply[base] for base in bases] == ([scope] if scope else []), path
    assert all(path in needed for path in reply)
