"""`make run` at a real terminal: ticks, one block, one line per request and micro-batch."""

import re
import signal

import httpx
import pytest

from contract.worker_status import PHASES
from tests.pseudo_terminal import PseudoTerminal
from tests.service import COMMAND, TINY_CHECKPOINT, Service

SECRET = "Quokkatext"
COLOUR = re.compile(r"\x1b\[\d+m")
CONTROL = re.compile(r"\x1b\[[\d;]*[A-Za-z]")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run writes to a terminal, from its start to its end, with some requests between."""
    return run_at_terminal(Service(tmp_path_factory.mktemp("terminal")))


def run_at_terminal(service: Service, **variables: str) -> str:
    environment = {**service.environment(), "TERM": "xterm-256color", **variables}
    terminal = PseudoTerminal(COMMAND, environment)
    try:
        terminal.read_until("Ctrl-C")
        with httpx.Client(base_url=service.url, timeout=60) as client:
            assert client.post("/score?wait=30", json={"text": SECRET}).status_code == 200
            assert client.post("/score", json={"txet": SECRET}).status_code == 422
            assert client.get(f"/{SECRET}").status_code == 404
            assert client.get("/readyz").status_code == 200
        terminal.read_until("404")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_end() == 0
        return terminal.text
    finally:
        terminal.close()


def lines_of(written: str) -> list[str]:
    """The lines that stay on the screen, without colours."""
    lasting = re.sub(r"[^\n]*\x1b\[2K", "", written)
    return CONTROL.sub("", lasting).replace("\r", "").splitlines()


def test_start_has_four_ticks_in_order(written):
    ticks = [line.split()[1] for line in lines_of(written) if line.startswith("  ✓")]
    assert ticks == ["Redis", "web", "model", "ready"]


def test_step_of_the_model_shows_its_phases_while_they_run(written):
    # Those that ended before the web server answered are not shown.
    assert re.search(rf"… model +(?:{'|'.join(PHASES.values())}), \d+ s", written)


def test_block_names_page_command_documents_and_how_to_stop(written):
    heads = [line.split()[0] for line in lines_of(written) if re.match(r"  [a-z]", line)]
    assert heads == ["page", "try", "shell", "docs", "stop"]


def test_each_request_and_each_micro_batch_is_one_line(written):
    lines = [line for line in lines_of(written) if re.match(r"\d\d:\d\d:\d\d  ", line)]
    assert [line.split()[1] for line in lines] == ["micro-batch", "POST", "POST", "GET"]
    assert [line.split()[3] for line in lines[1:3]] == ["200", "422"]
    assert "10 bytes" in lines[0]


def test_polls_warnings_json_and_texts_are_left_out(written):
    for unwanted in ("readyz", "healthz", "WARNING", "superuser", '{"', SECRET):
        assert unwanted not in written.replace('{"text": "The quick', "")


def test_terminal_gets_colours(written):
    assert COLOUR.search(written)


@pytest.mark.parametrize(
    ("variable", "value", "pattern"),
    [("NO_COLOR", "1", COLOUR), ("TERM", "dumb", CONTROL)],
)
def test_colours_and_control_sequences_can_be_turned_off(tmp_path, variable, value, pattern):
    written = run_at_terminal(Service(tmp_path), **{variable: value})
    assert not pattern.search(written)
    assert "✓ ready" in written


def test_json_can_be_asked_for_at_a_terminal(tmp_path):
    service = Service(tmp_path, log_format="json")
    terminal = PseudoTerminal(COMMAND, {**service.environment(), "TERM": "xterm"})
    try:
        terminal.read_until("service_ready")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.read_to_end() == 0
        assert [line for line in terminal.text.splitlines() if not line.startswith("{")] == []
    finally:
        terminal.close()


def test_last_line_says_why_the_worker_refuses_a_checkpoint(tmp_path):
    cut = tmp_path / "cut"
    cut.mkdir()
    for path in TINY_CHECKPOINT.iterdir():
        (cut / path.name).write_bytes(
            path.read_bytes()[: 100 if "safetensors" in path.name else None]
        )
    terminal = PseudoTerminal(COMMAND, {**Service(tmp_path, cut).environment(), "TERM": "xterm"})
    try:
        assert terminal.read_to_end() == 78
        assert re.match(r"evascore: .*truncated", lines_of(terminal.text)[-1])
    finally:
        terminal.close()
