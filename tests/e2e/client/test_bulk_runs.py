"""`evascore bulk` on a real web server, in which a thread plays the worker."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import keys
from contract.api_keys import new_key
from contract.store.key_store import KeyStore
from evascore.bulk import files as bulk_files
from evascore.cli.main import main
from tests.web import Outcomes, WebServer

UPLOAD_LINES = 2
NUM_LINES = 5
OWNERS: dict[str, dict[str, int]] = {"plain": {}, "other": {}, "small": {"bytes_per_minute": 8}}
Bulk = Callable[..., int]


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory) -> Iterator[WebServer]:
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url, auth="keys").start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def tokens(outcomes) -> dict[str, str]:
    """The tokens of keys by their owners."""
    made = {name: new_key(name, ("score", "bulk"), **limits) for name, limits in OWNERS.items()}
    for _, key in made.values():
        KeyStore(outcomes.client).add(key)
    return {name: token for name, (token, _) in made.items()}


@pytest.fixture
def worker(outcomes) -> Iterator[None]:
    """Scores every part of a batch, as a worker does, until the test ends."""
    ends = threading.Event()

    def work() -> None:
        while not ends.is_set():
            if outcomes.score_next_part() is None:
                ends.wait(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ends.set()
    thread.join()


@pytest.fixture
def bulk(web, tokens, tmp_path, monkeypatch) -> Bulk:
    """Runs `evascore bulk in.jsonl out.jsonl` in uploads of two lines; its exit code."""
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
