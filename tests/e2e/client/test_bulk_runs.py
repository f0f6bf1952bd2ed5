"""`evascore bulk` on a real web server, in which a thread plays the worker."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract import keys
from contract.api_keys import new_key
from contract.settings import REPOSITORY
from contract.store.key_store import KeyStore
from evascore.bulk import files as bulk_files
from evascore.bulk.files import Upload
from evascore.bulk.run import Bulk
from evascore.cli.main import main
from tests.conftest import HANG_S, killed_at_end
from tests.web import Outcomes, WebServer

UPLOAD_LINES = 2
NUM_LINES = 5
OWNERS: dict[str, dict[str, int]] = {"plain": {}, "other": {}, "small": {"bytes_per_minute": 8}}
A, B = {"name": "m", "fingerprint": "a" * 12}, {"name": "m", "fingerprint": "b" * 12}
RunBulk = Callable[..., int]


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory) -> Iterator[WebServer]:
    server = WebServer(
        tmp_path_factory.mktemp("web"),
        web_redis.url,
        auth="keys",
        max_upload_lines=UPLOAD_LINES,
    ).start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def tokens(outcomes) -> dict[str, str]:
    """The tokens of keys by their owners."""
    made = {name: new_key(name, ("score", "bulk"), **limits) for name, limits in OWNERS.items()}
    for _, key in made.values():
        KeyStore(outcomes.client).add(key)
    return {name: token for name, (token, _) in made.items()}


class Worker(threading.Thread):
    """Scores every part of a batch, until `stop`."""

    def __init__(self, outcomes: Outcomes) -> None:
        super().__init__()
        self._outcomes, self._ends = outcomes, threading.Event()
        self.models = [A]
        """Models of the next parts; the last one is that of all later ones."""

    def run(self) -> None:
        """Score what waits."""
        while not self._ends.is_set():
            if self._outcomes.score_next_part(self.models[0]) is None:
                self._ends.wait(0.02)
            elif len(self.models) > 1:
                self.models.pop(0)

    def stop(self) -> None:
        """End it, and wait for its end."""
        self._ends.set()
        self.join()


@contextmanager
def working(outcomes: Outcomes) -> Iterator[Worker]:
    """A worker that scores until the end of the block."""
    worker = Worker(outcomes)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@pytest.fixture
def worker(outcomes) -> Iterator[Worker]:
    with working(outcomes) as worker:
        yield worker


@pytest.fixture
def bulk(web, outcomes, tokens, tmp_path, monkeypatch) -> RunBulk:
    """Runs `evascore bulk in.jsonl out.jsonl` in uploads of two lines; its exit code."""
    # Another test may have left a debt.
    outcomes.client.delete(keys.quota("small"))
    monkeypatch.setattr(bulk_files, "UPLOAD_LINES", UPLOAD_LINES)
    monkeypatch.setenv("EVASCORE_URL", web.url)
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": "x" * n}) + "\n" for n in range(1, NUM_LINES + 1)]
    Path("in.jsonl").write_text("".join(lines))

    def run(*options: str, key: str = "plain", out: str = "out.jsonl") -> int:
        monkeypatch.setenv("EVASCORE_API_KEY", tokens[key])
        return main(["bulk", "in.jsonl", out, *options])

    return run


def written() -> list[int]:
    """The scores in OUT, which are the lengths of the texts."""
    lines = map(json.loads, Path("out.jsonl").read_bytes().splitlines())
    return [line["result"]["num_bytes"] for line in lines]


def state() -> dict[str, Any]:
    """What the run keeps of its progress."""
    return json.loads(Path("out.jsonl.state").read_bytes())


def change_state(change: Callable[[dict[str, Any]], None]) -> None:
    stored = state()
    change(stored)
    Path("out.jsonl.state").write_text(json.dumps(stored))


def at_the_service(outcomes: Outcomes) -> list[bytes]:
    """The batches that the service has."""
    return list(outcomes.client.scan_iter(keys.batch("*")))


# --- resuming -------------------------------------------------------------------------------------


def test_every_resume_fetches_what_is_ready_though_the_quota_is_used_up(worker, bulk, outcomes):
    for num_written in (2, 4):
        # The first upload leaves a debt of bytes that takes longer to pay than the patience.
        assert bulk("--resume", key="small") == 3
        assert len(written()) == num_written
        outcomes.client.delete(keys.quota("small"))
    assert bulk("--resume", key="small") == 0
    assert written() == [1, 2, 3, 4, 5]


def unfinished(stored: dict[str, Any]) -> None:
    """Put a state back to the moment before the last batch was erased."""
    stored["uploads"][-1]["is_finished"] = False


@pytest.mark.parametrize("key", ["plain", "other"])
def test_run_ends_though_its_last_batch_is_not_there_to_be_erased(worker, bulk, key):
    assert bulk() == 0
    change_state(unfinished)
    assert bulk("--resume", key=key) == 0
    assert state()["uploads"][-1]["is_finished"]


def test_upload_that_is_too_large_for_the_service_is_halved(worker, bulk, monkeypatch):
    monkeypatch.setattr(bulk_files, "UPLOAD_LINES", 2 * UPLOAD_LINES + 1)
    assert bulk() == 0
    assert written() == [1, 2, 3, 4, 5]
    assert [upload["num_lines"] for upload in state()["uploads"]] == [2, 1, 2]


@pytest.mark.parametrize("change", ["same", "longer", "other"])
def test_input_that_is_replaced_during_a_run_must_begin_alike(
    worker, bulk, monkeypatch, capsys, change
):
    same = Path("in.jsonl").read_text()
    others = {"same": same, "longer": same * 2, "other": same.replace("xxxxx", "yyyyy")}
    finish = Bulk._finish

    def finish_and_replace(run: Bulk, upload: Upload) -> None:
        finish(run, upload)
        # The last line is in the third upload, which is sent later.
        Path("new.jsonl").write_text(others[change])
        Path("new.jsonl").replace("in.jsonl")

    monkeypatch.setattr(Bulk, "_finish", finish_and_replace)
    if change != "other":
        assert bulk() == 0
        assert written() == [1, 2, 3, 4, 5]
        return
    assert bulk() == 2
    assert written() == [1, 2]
    assert "in.jsonl changed while it was read" in capsys.readouterr().err
    monkeypatch.setattr(Bulk, "_finish", finish)
    assert bulk("--overwrite") == 0


# --- one model ------------------------------------------------------------------------------------


def test_run_stops_before_it_writes_scores_of_another_model(worker, bulk, outcomes, capsys):
    worker.models = [A, B]
    assert bulk() == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "first 2 results are of the model m@aaaaaaaaaaaa" in said
    assert "would be of m@bbbbbbbbbbbb" in said
    assert written() == [1, 2]
    assert at_the_service(outcomes) == []
    # As long as the other model is there, nothing of it is written.
    assert bulk("--resume") == 1
    assert written() == [1, 2]
    worker.models = [A]
    assert bulk("--resume", "--json") == 0
    assert written() == [1, 2, 3, 4, 5]
    assert json.loads(capsys.readouterr().out)["model"] == "m@aaaaaaaaaaaa"


def test_run_that_is_resumed_later_stops_if_the_model_is_another_one(worker, bulk, outcomes):
    assert bulk(key="small") == 3
    outcomes.client.delete(keys.quota("small"))
    worker.models = [B]
    assert bulk("--resume", key="small") == 1
    assert written() == [1, 2]
    outcomes.client.delete(keys.quota("small"))
    assert bulk("--overwrite") == 0
    assert written() == [1, 2, 3, 4, 5]
    assert state()["model"] == "m@bbbbbbbbbbbb"


def test_run_of_release_0_1_takes_the_model_that_comes_first(worker, bulk, outcomes):
    assert bulk(key="small") == 3
    change_state(lambda stored: stored.pop("model"))
    outcomes.client.delete(keys.quota("small"))
    worker.models = [B]
    assert bulk("--resume", key="small") == 3
    assert state()["model"] == "m@bbbbbbbbbbbb"
    outcomes.client.delete(keys.quota("small"))
    worker.models = [A]
    assert bulk("--resume", key="small") == 1
    assert written() == [1, 2, 3, 4]


def test_errors_of_lines_have_no_model(worker, bulk, capsys):
    Path("in.jsonl").write_text('{"text": ""}\n' * 4 + '{"text": "x"}\n')
    worker.models = [A, A, B]
    assert bulk("--json") == 4
    assert json.loads(capsys.readouterr().out)["model"] == "m@bbbbbbbbbbbb"


# --- given up -------------------------------------------------------------------------------------


def begin(command: str) -> subprocess.Popen[str]:
    """Run a command of a shell in which `evascore` is the client."""
    run_it = f'evascore() {{ exec "{sys.executable}" -m evascore "$@"; }}; {command}'
    return subprocess.Popen(
        ["env", f"PYTHONPATH={REPOSITORY / 'client'}", "bash", "-c", run_it],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_signals,
    )


def _heed_signals() -> None:
    """Undo what a shell in the background or `nohup` does: to ignore Ctrl-C or SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def environment(bulk, tokens, monkeypatch):
    """What `begin` needs."""
    monkeypatch.setenv("EVASCORE_API_KEY", tokens["plain"])


@pytest.mark.parametrize(
    "ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_run_to_stdout_that_a_signal_ends_leaves_nothing(
    environment, outcomes, tmp_path, monkeypatch, ended_by
):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    assert at_the_service(outcomes) == []
    with killed_at_end(begin("evascore bulk in.jsonl -")) as process:
        # It is said once the upload is accepted and no worker scores it.
        assert "Waiting: " in process.stderr.readline()
        assert len(at_the_service(outcomes)) == 1
        assert list(temporary.iterdir())
        process.send_signal(ended_by)
        _, said = process.communicate(timeout=HANG_S)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith("OUT is stdout, so the run cannot be resumed.")
    assert at_the_service(outcomes) == []
    assert list(temporary.iterdir()) == []


def test_run_whose_reader_closes_early_leaves_nothing_at_the_service(environment, outcomes):
    with killed_at_end(begin("(evascore bulk in.jsonl -); echo $? >&2")) as process:
        # Before the first result: later ones could be in the pipe already.
        process.stdout.close()
        with working(outcomes):
            _, said = process.communicate(timeout=HANG_S)
    # On a busy machine it may say that it waits.
    assert [line for line in said.splitlines() if "Waiting: " not in line] == ["141"]
    assert at_the_service(outcomes) == []


@pytest.mark.parametrize("option", [[], ["--keep"]], ids=["erase", "keep"])
def test_run_that_starts_again_erases_what_the_earlier_one_left(worker, bulk, outcomes, option):
    def interrupted(stored: dict[str, Any]) -> None:
        for upload in stored["uploads"]:
            upload["is_finished"] = False

    assert bulk("--keep") == 0
    earlier = set(at_the_service(outcomes))
    assert len(earlier) == 3
    change_state(interrupted)
    assert bulk("--overwrite", *option) == 0
    assert earlier & set(at_the_service(outcomes)) == (earlier if option else set())
    for name in at_the_service(outcomes):
        outcomes.client.delete(name)
