"""The page on troubleshooting names errors and settings that exist."""

import re

import pytest

from contract.errors import BY_CODE
from contract.setting_refusals import environment_name
from contract.settings import REPOSITORY, Settings

PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
# Of the client, which does not read the settings of the service.
OF_THE_CLIENT = {"EVASCORE_API_KEY"}
FIRST_CELLS = re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE)
# What was asked for, or what is only a state of a running service.
NO_FAILURES = {"job_not_found", "job_ended", "job_cancelled", "job_gone", "job_unreadable"}
FAILURES = sorted(code for code in BY_CODE if code.startswith("job_") and code not in NO_FAILURES)


def test_every_setting_exists():
    named = set(re.findall(r"EVASCORE_[A-Z_]+", PAGE)) - OF_THE_CLIENT
    assert len(named) > 5
    assert named <= {environment_name(name) for name in Settings.model_fields}


def test_every_code_exists():
    named = {code for cell in FIRST_CELLS for code in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", cell)}
    named -= {"type"}
    assert len(named) > 10
    assert named <= set(BY_CODE)


@pytest.mark.parametrize("code", FAILURES)
def test_every_code_of_a_failed_job_is_explained(code):
    assert f"`{code}`" in PAGE
