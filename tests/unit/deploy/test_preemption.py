"""The notice of preemption, from a metadata server that holds its answers back as Google's does."""

import http.server
import subprocess
import sys
import threading
import urllib.parse

import pytest

from contract.settings import REPOSITORY
from tests.conftest import wait_until

WATCH = REPOSITORY / "deploy" / "vm" / "preemption.py"
NOTICE_S = 30


class Metadata(http.server.ThreadingHTTPServer):
    """Answers `instance/preempted`; refuses the first requests when told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.value = "FALSE"
        self.changed = threading.Condition()
        self.num_refused = 0
        self.queries: list[dict[str, list[str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def preempt(self) -> None:
        with self.changed:
            self.value = "TRUE"
            self.changed.notify_all()


class Answer(http.server.BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        assert self.headers["Metadata-Flavor"] == "Google"
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        self.server.queries.append(query)
        if len(self.server.queries) <= self.server.num_refused:
            self.send_error(503)
            return
        with self.server.changed:
            if query.get("last_etag") == [self.server.value]:
                self.server.changed.wait(timeout=20)
            value = self.server.value.encode()
        self.send_response(200)
        self.send_header("ETag", value.decode())
        self.end_headers()
        self.wfile.write(value)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def metadata():
    """A metadata server of a VM that is left alone for now."""
    server = Metadata()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.preempt()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def watch(metadata, tmp_path):
    """The watch, which makes a file when it has seen the notice."""
    command = [sys.executable, WATCH, "--metadata", metadata.url]
    process = subprocess.Popen([*command, "--then", f"touch {tmp_path / 'seen'}"])
    yield process
    process.kill()
    process.wait()


def test_notice_is_acted_upon_at_once_and_not_before(metadata, watch, tmp_path):
    # The second request waits for a change.
    wait_until(lambda: len(metadata.queries) == 2)
    assert not (tmp_path / "seen").exists()
    metadata.preempt()
    assert watch.wait(NOTICE_S) == 0
    assert (tmp_path / "seen").exists()
    assert metadata.queries[1]["wait_for_change"] == ["true"]


def test_vm_that_is_already_being_taken_is_noticed(metadata, watch, tmp_path):
    metadata.preempt()
    assert watch.wait(NOTICE_S) == 0
    assert (tmp_path / "seen").exists()


def test_server_that_is_away_for_a_moment_is_asked_again(metadata, tmp_path):
    metadata.num_refused = 1
    metadata.preempt()
    command = [sys.executable, WATCH, "--metadata", metadata.url, "--dry-run", "--then", "false"]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=NOTICE_S, check=False)
    assert seen.returncode == 0
    assert "asking again" in seen.stdout
    assert "would run: false" in seen.stdout


def test_failure_of_the_command_is_reported(metadata):
    metadata.preempt()
    command = [sys.executable, WATCH, "--metadata", metadata.url, "--then", "false"]
    assert subprocess.run(command, timeout=NOTICE_S, check=False).returncode == 1
