"""What `make run` shows at a terminal: its start, and commands for a newcomer."""

import io
import json
import re

import pytest

from deploy.report import DEFAULT_URL, TextReport, curl_of, next_steps, shell_command
from deploy.terminal import Terminal
from evascore.http import transport


class Screen(io.StringIO):
    """A terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def status(self) -> str:
        """The line that changes; it shows 0 s, however long it took."""
        line = self.getvalue().splitlines()[-1].rpartition("\x1b[2K")[2]
        return re.sub(r"\d+ s$", "0 s", line.strip())


def test_command_of_the_client_is_named_where_it_is_installed(tmp_path):
    (tmp_path / "evascore").touch()
    assert shell_command(DEFAULT_URL, tmp_path) == f'{tmp_path}/evascore score "Any text."'


def test_command_of_the_client_comes_with_its_installation_where_it_is_missing(tmp_path):
    assert shell_command(DEFAULT_URL, tmp_path).startswith(f"{tmp_path}/pip install ./client && ")


def test_another_url_is_part_of_the_command(tmp_path):
    assert " --url http://[::1]:9000 " in shell_command("http://[::1]:9000", tmp_path)


def test_client_and_service_have_the_same_default():
    assert transport.DEFAULT_URL == DEFAULT_URL


@pytest.mark.parametrize("has_keys", [False, True])
def test_command_has_a_key_where_requests_need_one(has_keys):
    assert ("$EVASCORE_API_KEY" in curl_of(DEFAULT_URL, has_keys=has_keys)) == has_keys


@pytest.mark.parametrize("has_keys", [False, True])
def test_start_shows_how_to_make_a_key_where_requests_need_one(tmp_path, has_keys):
    rows = dict(next_steps(DEFAULT_URL, tmp_path, has_keys=has_keys))
    assert ("$EVASCORE_API_KEY" in rows["try"]) == has_keys
    command = f"{tmp_path}/python -m app.keys create NAME" if has_keys else None
    assert rows.get("key") == command


def test_step_of_the_model_shows_the_phase_that_runs(monkeypatch):
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    report = TextReport(Terminal(screen))
    show = report.reader_of("worker")
    report.begin("web")
    report.begin("model")
    # Nothing of it shows before the step of the web server is done.
    shown = [screen.status()]
    report.done("web", "")
    shown.append(screen.status())
    for phase in ("redis", "load"):
        show(json.dumps({"event": "startup_phase", "phase": phase}))
        shown.append(screen.status())
    assert shown == [
        "… web     0 s",
        "… model   importing libraries, 0 s",
        "… model   connecting to Redis, 0 s",
        "… model   loading the model, 0 s",
    ]
