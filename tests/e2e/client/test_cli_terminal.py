"""The command line as a person sees it: colours at a terminal, plain text in a pipe."""

import json
import re
import subprocess
import sys

import httpx
import pytest

import evascore
from contract.settings import REPOSITORY
from evascore.http.transport import ROUTES
from tests.pseudo_terminal import PseudoTerminal
from tests.service import Service, suspended

COMMAND = (sys.executable, "-m", "evascore")
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def environment(service: Service, **variables: str) -> dict[str, str]:
    inherited = service.environment()
    for name in ("NO_COLOR", "FORCE_COLOR"):
        inherited.pop(name, None)
    return {**inherited, "EVASCORE_URL": service.url, "TERM": "xterm-256color", **variables}


def at_terminal(service: Service, *arguments: str, **variables: str) -> str:
    terminal = PseudoTerminal(
        [*COMMAND, *arguments], environment(service, **variables), REPOSITORY / "client"
    )
    try:
        assert terminal.read_to_end() == 0, terminal.text
        return terminal.text.replace("\r\n", "\n")
    finally:
        terminal.close()


def piped(service: Service, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=REPOSITORY / "client",
        env=environment(service, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_text_is_coloured_at_a_terminal(scoring):
    shown = at_terminal(scoring, "score", "über\nall")
    assert COLOUR.search(shown)
    assert COLOUR.sub("", shown).startswith("über⏎\nall\nbits per byte:  0-1 ")
    assert "perplexity per byte" in shown


def test_text_cannot_control_the_terminal(scoring):
    shown = at_terminal(scoring, "score", "a\x1b]0;title\x07\x1b[2Jb", "--spans", "words")
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_turned_off(scoring, variable):
    shown = at_terminal(scoring, "score", "any text", **variable)
    assert "\x1b" not in shown
    assert shown.startswith("bits per byte  ")


def test_pipe_gets_the_table_alone(scoring):
    ran = piped(scoring, "score", "any text")
    assert ran.stdout.startswith("bits per byte  ")
    assert "\x1b" not in ran.stdout


def test_characters_that_stdout_cannot_encode_are_escapes_and_json_is_utf_8(scoring):
    text = ("score", "a €", "--spans", "words")
    table = piped(scoring, *text, PYTHONIOENCODING="latin-1")
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout.endswith("' \\u20ac'\n")
    spans = piped(scoring, *text, "--json", PYTHONIOENCODING="latin-1")
    assert json.loads(spans.stdout)["spans"]
    after = piped(
        scoring, "score", "a", "--next-chars", "100", "--json", PYTHONIOENCODING="latin-1"
    )
    assert not after.stdout.isascii()
    assert len(json.loads(after.stdout)["next_chars"]["characters"]) == 100


def test_spans_windows_and_next_characters_can_be_asked_for(scoring):
    options = ("--spans", "words", "--next-chars", "2")
    shown = piped(scoring, "score", "one two", *options).stdout
    assert re.search(r"\n +0 +3 .*'one'\n +3 +4 .*' two'\n", shown)
    assert len(shown.partition("next character\n")[2].splitlines()) == 2
    reply = json.loads(piped(scoring, "score", "one two", *options, "--json").stdout)
    assert [(span["start"], span["end"]) for span in reply["spans"]] == [(0, 3), (3, 7)]
    windowed = piped(scoring, "score", "x" * 300, "--window", "256,128", "--json")
    assert len(json.loads(windowed.stdout)["windows"]) == 2


def test_continuations_are_compared(scoring):
    given = ("--context", "2 + 2 = ", "--continuation", "4", "--continuation", "22")
    reply = json.loads(piped(scoring, "score", *given, "--json").stdout)
    head, *rows = piped(scoring, "score", *given).stdout.splitlines()
    assert head.split() == ["nats", "bits/byte", "share", "continuation"]
    assert [float(row.split()[0]) for row in rows] == pytest.approx(
        [score["log_likelihood_nats"] for score in reply], abs=1e-4
    )
    assert sum(float(row.split()[2].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--continuation", "b"], "--continuation goes with --context"),
        (["--continuation", "b"], "needs --context"),
        (["--context", "a", "--continuation", "b", "-o", "bytes"], "need --json"),
        (["a", "--window", "3"], "SIZE,STRIDE"),
        (["a", "--urll", "x"], "did you mean --url?"),
        (["a", "--spans", "letters"], "--spans"),
    ],
)
def test_wrong_options_are_refused_in_one_line(scoring, arguments, words):
    ran = piped(scoring, "score", *arguments)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert words in line


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_address_of_a_route_is_recognised(scoring, route):
    ran = piped(scoring, "score", "a", "--url", f"http://name:secret@127.0.0.1:8000/{route}")
    assert ran.returncode == 2
    assert "did you mean http://127.0.0.1:8000?" in ran.stderr
    assert "secret" not in ran.stderr


def test_job_can_be_read_and_not_be_cancelled_after_its_end(scoring):
    with evascore.Client(scoring.url) as client:
        job = client.wait(client.submit("one", "two"))
    lines = piped(scoring, "get", job.id).stdout.splitlines()
    assert [json.loads(line)["result"]["num_bytes"] for line in lines] == [3, 3]
    assert re.search(r"^state +SUCCESS$", piped(scoring, "status", job.id).stdout, re.MULTILINE)
    assert json.loads(piped(scoring, "status", job.id, "--json").stdout)["state"] == "SUCCESS"
    refused = piped(scoring, "cancel", job.id)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)


def test_batch_can_be_read_waited_for_and_cancelled(scoring):
    with evascore.Client(scoring.url) as client:
        batch = client.submit_batch(["one", "two", "three"])
    lines = piped(scoring, "get", batch.id, "--wait", "60").stdout.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]
    assert "lines total" in piped(scoring, "status", batch.id).stdout
    # Else it may end before it is cancelled.
    with suspended(scoring.part("worker")):
        with evascore.Client(scoring.url) as client:
            other = client.submit_batch(["one"] * 1000)
        ran = piped(scoring, "cancel", other.id)
    assert re.search(r"^status +cancell", ran.stdout, re.MULTILINE), ran.stderr


def test_unknown_id_is_refused_in_one_line(scoring):
    ran = piped(scoring, "get", "a" * 32)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1)


def test_state_of_the_service_names_its_workers(scoring):
    assert re.search(r"^workers +\S+ \(\w+\)$", piped(scoring, "status").stdout, re.MULTILINE)


def test_version_is_shown(scoring):
    assert piped(scoring, "--version").stdout == f"evascore {evascore.__version__}\n"


@pytest.mark.parametrize("command", ["score", "bulk", "gen-data", "get", "status", "cancel"])
def test_paragraphs_of_the_help_are_not_broken(scoring, command):
    shown = at_terminal(scoring, command, "--help", COLUMNS="200")
    words = COLOUR.sub("", shown).partition("Usage:")[2].partition("╭")[0].splitlines()[2:]
    paragraphs = [line.strip() for line in words if line.strip()]
    assert paragraphs
    assert all(paragraph.endswith(".") for paragraph in paragraphs)


@pytest.mark.parametrize("path", ["/info", "/nowhere", "/score"])
def test_answers_end_in_a_newline(scoring, path):
    assert httpx.get(f"{scoring.url}{path}").content.endswith(b"}\n")
