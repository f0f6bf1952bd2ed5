"""The command line on a service that needs API keys: the key comes from the environment alone."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from contract.api_keys import Scope, new_key
from evascore.cli.main import main
from tests.service import Service

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tokens() -> dict[str, str]:
    """The tokens by the name of their key."""
    return {}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, tokens) -> Iterator[Service]:
    """The whole service, with keys from a file as a secret of Kubernetes would be."""
    folder = tmp_path_factory.mktemp("keyed")
    of_names: dict[str, tuple[Scope, ...]] = {
        "scorer": ("score", "bulk"),
        "uploader": ("bulk",),
        "monitor": ("metrics",),
        "boss": ("admin",),
        "small": ("score", "metrics"),
    }
    lines = []
    for name, scopes in of_names.items():
        limits = {"requests_per_minute": 2} if name == "small" else {}
        tokens[name], key = new_key(name, scopes, **limits)
        lines.append(key.encode())
    (folder / "keys").write_bytes(b"\n".join(lines))
    # `redis_timeout_s` as long as may be: `bench` sends no request again.
    settings = {"auth": "keys", "keys_file": folder / "keys", "redis_timeout_s": 5}
    service = Service(folder, **settings).start()
    yield service
    log = service.log.read_text()
    assert not [token for token in tokens.values() if token in log]
    assert service.stop() == 0


@pytest.fixture
def evascore(keyed, tokens, tmp_path, capfd, monkeypatch) -> Command:
    """Run a command with the key of this name; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVASCORE_URL", keyed.url)

    def run(*arguments: str, key: str | None = None) -> tuple[int, str, str]:
        monkeypatch.delenv("EVASCORE_API_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("EVASCORE_API_KEY", tokens.get(key, key))
        capfd.readouterr()
        code = main(list(arguments))
        return code, *capfd.readouterr()

    return run


def test_score_takes_the_key_from_the_environment(evascore):
    code, _, error = evascore("score", "any text")
    assert code == 1
    assert error.count("\n") == 1
    assert "EVASCORE_API_KEY" in error
    code, out, _ = evascore("score", "--json", "any text", key="scorer")
    assert code == 0
    assert json.loads(out)["num_bytes"] == 8


def test_key_that_may_not_score_is_refused_in_one_line(evascore):
    code, _, error = evascore("score", "any text", key="monitor")
    assert code == 1
    assert error == "evascore: This request needs the scope score; this key has metrics.\n"


def test_key_that_no_header_can_carry_is_a_wrong_input(evascore):
    code, _, error = evascore("score", "any text", key="evs with spaces")
    assert code == 2
    assert "ASCII without spaces" in error
    assert "evs with spaces" not in error


@pytest.mark.parametrize("command", [["score"], ["bulk", "in", "out"], ["doctor"]])
def test_no_option_takes_a_key(evascore, tokens, command):
    code, _, error = evascore(*command, "--api-key", tokens["scorer"])
    assert code == 2
    assert tokens["scorer"] not in error
    assert "--api-key" not in evascore(command[0], "--help")[1]


def test_bulk_goes_on_once_it_has_its_key(evascore, tokens, tmp_path):
    texts = [{"custom_id": str(n), "text": f"text {n}"} for n in range(20)]
    (tmp_path / "in").write_text("".join(json.dumps(text) + "\n" for text in texts))
    code, _, error = evascore("bulk", "in", "out", "--resume")
    assert code == 1
    assert "EVASCORE_API_KEY" in error
    code, _, _ = evascore("bulk", "in", "out", "--resume", key="scorer")
    assert code == 0
    results = [json.loads(line) for line in Path("out").read_text().splitlines()]
    assert [result["custom_id"] for result in results] == [text["custom_id"] for text in texts]
    assert not any(tokens["scorer"] in path.read_text() for path in Path().iterdir())


def checks_of(ran: tuple[int, str, str]) -> dict[str, dict[str, str]]:
    """The checks of a report, by name."""
    return {check["name"]: check for check in json.loads(ran[1])["checks"]}


@pytest.mark.parametrize("key", [None, "evs_000000000000_" + "a" * 32])
def test_doctor_tells_a_missing_or_refused_key_from_a_broken_service(evascore, key):
    ran = evascore("doctor", "--json", key=key)
    checks = checks_of(ran)
    assert ran[0] == 1
    assert checks["api key"]["state"] == "failed"
    assert "EVASCORE_API_KEY" in checks["api key"]["remedy"]
    assert {checks[name]["state"] for name in ("web server", "redis", "worker", "model")} == {"ok"}
    assert checks.keys().isdisjoint({"queue", "scoring"})


def test_doctor_checks_what_the_scopes_of_the_key_allow(evascore):
    scorer = evascore("doctor", "--json", key="scorer")
    assert scorer[0] == 0
    assert checks_of(scorer)["api key"]["state"] == checks_of(scorer)["scoring"]["state"] == "ok"
    monitor = checks_of(evascore("doctor", "--json", key="monitor"))
    assert (monitor["queue"]["state"], monitor["scoring"]["state"]) == ("ok", "failed")
    assert "scope" in monitor["scoring"]["remedy"]
    boss = evascore("doctor", "--json", key="boss")
    assert boss[0] == 0
    assert {check["state"] for check in checks_of(boss).values()} == {"ok"}


def test_doctor_says_how_long_to_wait_for_the_quota(evascore):
    for _ in range(2):
        evascore("score", "any text", key="small")
    scoring = checks_of(evascore("doctor", "--json", key="small"))["scoring"]
    assert scoring["state"] == "failed"
    assert re.fullmatch(r"wait \d+ s", scoring["remedy"])
    assert scoring["detail"].endswith("is used up")


def test_key_for_batches_alone_reads_their_state(keyed, tokens, evascore):
    headers = {
        "Authorization": f"Bearer {tokens['uploader']}",
        "Content-Type": "application/x-ndjson",
    }
    posted = httpx.post(f"{keyed.url}/batches", headers=headers, content=b'{"text": "a"}')
    batch_id = posted.json()["id"]
    code, shown, _ = evascore("status", batch_id, key="uploader")
    assert code == 0
    assert batch_id in shown
    # It may be a job.
    other_id = batch_id[:-1] + ("y" if batch_id.endswith("x") else "x")
    code, _, message = evascore("status", other_id, key="uploader")
    assert code == 1
    assert "needs the scope score" in message
