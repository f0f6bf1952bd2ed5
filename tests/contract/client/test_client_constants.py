"""The names and limits that the client repeats are those of the service, and its sizes fit them."""

import inspect
import re
from typing import Any

import pytest

import evascore
from app.requests.page_query import MAX_PAGE_LINES
from contract.grammar import counts
from contract.grammar.outputs import DEFAULT_TOP_K, MAX_NEXT_CHARS, MAX_TOP_K, OUTPUT_NAMES
from contract.grammar.text_request import REQUEST_OPTIONS
from contract.grammar.vocabulary import NUM_SPECIAL_IDS
from contract.settings import load_settings
from evascore import constants, wording
from evascore.bulk import files, run
from evascore.cli.main import main
from evascore.http import transport
from evascore.lm_eval import requests as lm_eval_requests
from evascore.measuring import synthetic
from evascore.operations import api, grouping

SETTINGS = load_settings({})
ASKED_OUTPUTS = [name for name in OUTPUT_NAMES if name != "summary"]


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The help of a command, without line breaks and frames."""
    assert main([command, "--help"]) == 0
    return " ".join(re.sub(r"[│\n]", " ", capsys.readouterr().out).split())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(constants.OUTPUTS, tuple(ASKED_OUTPUTS), id="outputs"),
        pytest.param(("items", *constants.REQUEST_OPTIONS), REQUEST_OPTIONS, id="request"),
        pytest.param(constants.DEFAULT_TOP_K, DEFAULT_TOP_K, id="default top_k"),
        pytest.param(constants.MAX_TOP_K, MAX_TOP_K, id="largest top_k"),
        pytest.param(constants.MAX_NEXT_CHARS, MAX_NEXT_CHARS, id="most next characters"),
        pytest.param(constants.NUM_SPECIAL_IDS, NUM_SPECIAL_IDS, id="special ids"),
        pytest.param(transport.DEFAULT_URL, f"http://127.0.0.1:{SETTINGS.port}", id="port"),
    ],
)
def test_constant_is_that_of_the_service(ours, theirs):
    assert ours == theirs, "client/evascore repeats another value than the service has"


@pytest.mark.parametrize("output", ASKED_OUTPUTS)
def test_output_is_a_field_of_the_clients_score(output):
    fields = evascore.Score.__dataclass_fields__
    assert output in fields, f"client/evascore/results.py: Score has no field {output}"


@pytest.mark.parametrize("output", ASKED_OUTPUTS)
@pytest.mark.parametrize("command", ["score", "bulk"])
def test_help_of_the_command_line_names_the_output(command, output, capsys):
    assert output in help_of(command, capsys), f"evascore {command} --help does not name {output}"


@pytest.mark.parametrize("output", ASKED_OUTPUTS)
def test_docstrings_of_the_client_name_the_output(output):
    places = {
        "client/evascore/aio.py: score": inspect.getdoc(evascore.AsyncClient.score),
        "client/evascore/texts.py: Text": inspect.getsource(evascore.Text),
    }
    missing = [place for place, text in places.items() if f"`{output}`" not in text]
    assert not missing, f"{output} is not named in {', '.join(missing)}"


def test_help_tells_the_bounds_of_top_k(capsys):
    reply = help_of("score", capsys)
    assert f"1 to {MAX_TOP_K}; {DEFAULT_TOP_K} if not given" in reply


@pytest.mark.parametrize(
    ("ours", "limit"),
    [
        pytest.param(api.MAX_WAIT_S, SETTINGS.max_wait_s, id="long poll"),
        pytest.param(grouping.GROUP_BYTES, SETTINGS.micro_batch_bytes, id="bytes of a group"),
        pytest.param(grouping.GROUP_TEXTS, SETTINGS.max_items, id="texts of a group"),
        pytest.param(files.UPLOAD_LINES, SETTINGS.max_upload_lines, id="lines of an upload"),
        pytest.param(files.UPLOAD_LINES, SETTINGS.max_upload_errors, id="bad lines of an upload"),
        pytest.param(files.UPLOAD_BYTES, SETTINGS.max_upload_bytes, id="bytes of an upload"),
        pytest.param(run.UPLOADS_AT_ONCE, SETTINGS.max_uploads // 2, id="uploads at once"),
        pytest.param(run.PAGE_LINES, MAX_PAGE_LINES, id="results of a page"),
        pytest.param(lm_eval_requests.JOB_BYTES, SETTINGS.max_job_bytes, id="bytes of a job"),
        pytest.param(synthetic.Recipe().max_bytes, SETTINGS.max_text_bytes, id="generated text"),
    ],
)
def test_size_that_the_client_chooses_fits_the_default_limit(ours: Any, limit: Any):
    assert 0 < ours <= limit


def test_client_closes_idle_connections_before_the_service_does():
    assert transport.LIMITS.keepalive_expiry < SETTINGS.keepalive_s


@pytest.mark.parametrize("number", [0, 1, 2, 1000])
def test_client_puts_numbers_into_words_as_the_service_does(number):
    assert wording.counted(number, "line") == counts.counted(number, "line", ",")
