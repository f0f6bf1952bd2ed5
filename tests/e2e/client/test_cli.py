"""The command line against the real service, as a person or a script uses it."""

import io
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from contract.settings import REPOSITORY
from deploy.embedded_redis import free_port
from evascore.cli.main import main
from tests.service import Service

SECRET = "Sesame-Marker"


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Cli:
    """Runs `evascore` against one service, in this process."""

    def __init__(
        self, url: str, capture: pytest.CaptureFixture[bytes], patch: pytest.MonkeyPatch
    ) -> None:
        self._url, self._capture, self._patch = url, capture, patch

    def __call__(self, *arguments: str | bytes, stdin: bytes = b"", url: str | None = None) -> Ran:
        self._patch.setenv("EVASCORE_URL", url or self._url)
        self._patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capture.readouterr()
        code = main([os.fsdecode(argument) for argument in arguments])
        return Ran(code, *self._capture.readouterr())


@pytest.fixture
def cli(
    scoring: Service,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(scoring.url, capfdbinary, monkeypatch)


def refusal(ran: Ran, exit_code: int) -> str:
    """The one line that a command ends with."""
    assert ran.returncode == exit_code, ran.stderr
    (line,) = ran.stderr.decode().splitlines()
    assert SECRET not in line
    return line


# --- score ----------------------------------------------------------------------------------------


def test_model_can_be_named_and_one_that_is_not_served_is_refused(cli, tmp_path):
    (tmp_path / "texts").write_bytes(b"one\n")
    score = json.loads(cli("score", "--json", "--model", "small", "any text").stdout)
    exact = f"small@{score['model']['fingerprint']}"
    bulk = ("bulk", "texts", "out", "--format", "text", "--overwrite")
    for command in (("score", "any text"), ("next-chars", "any text"), bulk):
        assert cli(*command, "--model", exact).returncode == 0
        line = refusal(cli(*command, "--model", SECRET), 1)
        assert "served are small" in line


def test_text_comes_as_argument_from_a_file_and_on_stdin(cli, tmp_path):
    (tmp_path / "text").write_bytes(b"any text\n")
    argument = cli("score", "--json", "any text\n")
    scores = [
        json.loads(ran.stdout)["log_likelihood_nats"]
        for ran in (
            argument,
            cli("score", "--json", "--file", "text"),
            cli("score", "--json", stdin=b"any text\n"),
            cli("score", "--json", "-", stdin=b"any text\n"),
        )
    ]
    assert scores == pytest.approx([scores[0]] * 4)


def test_bytes_that_are_not_utf8_are_scored_as_they_are(cli):
    as_they_are = ("score", "--json", "--encoding", "bytes")
    assert json.loads(cli(*as_they_are, stdin=b"\xff\x00").stdout)["num_bytes"] == 2
    assert "give --encoding" in refusal(cli("score", stdin=b"a\xff\x00"), 2)
    assert json.loads(cli("score", "--json", b"a\xff").stdout)["num_chars"] is None


def test_likeliest_bytes_are_written_for_people_too(cli):
    ran = cli("score", "a\n", "-o", "top_k", "--top-k", "2")
    head, *rows = ran.stdout.decode().splitlines()[-3:]
    assert head.split() == ["byte", "likeliest"]
    assert [row.split()[0] for row in rows] == ["a", "0a"]
    reply = json.loads(cli("score", "a\n", "-o", "top_k", "--top-k", "2", "--json").stdout)["top_k"]
    for row, likeliest in zip(rows, reply, strict=True):
        shown = [float(share) for share in row.split()[2::2]]
        assert shown == pytest.approx([math.exp(nats) for _, nats in likeliest], abs=6e-4)


def test_characters_after_one_text_go_to_the_file_that_is_named(cli, tmp_path):
    ran = cli("next-chars", "any text", "-k", "2", "--out", "next.json")
    assert (ran.returncode, ran.stdout) == (0, b"")
    assert len(json.loads((tmp_path / "next.json").read_bytes())["characters"]) == 2


def test_score_is_written_for_people_unless_for_programs(cli):
    shown = cli("score", "über", "-o", "bytes").stdout.decode()
    assert "bits per byte" in shown
    assert "5 bytes, 4 characters" in shown
    assert len(shown.partition("entropy\n")[2].splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        pytest.param(["score", ""], 1, "nothing to score", id="empty"),
        pytest.param(["score", SECRET * 4000], 1, "the limit is 4095", id="too large"),
        pytest.param(["score", SECRET, "and", SECRET], 2, "in quotes", id="without quotes"),
        pytest.param(["score", f"--{SECRET} a b c d"], 2, "put --", id="begins with a dash"),
        pytest.param(["score", SECRET, "-o", "nothing"], 1, "/outputs/0", id="unknown output"),
        pytest.param(["score", SECRET, "--top-k", "x"], 2, "--top-k", id="no number"),
        pytest.param(["score", SECRET, "--file", "a"], 2, "not both", id="two texts"),
        pytest.param(["next-chars", SECRET, "--file", "a"], 2, "not both", id="text and file"),
        pytest.param(["bench", "--clients", "1", "--rate", "1"], 2, "not both", id="two loops"),
        pytest.param(["score", "--file", "absent"], 5, "absent: No such file", id="no file"),
        pytest.param(
            ["score", SECRET, "--url", "ftp://a"], 2, "URL of the service must", id="no URL"
        ),
        pytest.param(["sorce", SECRET], 2, "Did you mean 'score'", id="misspelt"),
    ],
)
def test_what_is_wrong_is_reported_in_one_line_without_the_text(cli, arguments, exit_code, said):
    assert said in refusal(cli(*arguments), exit_code)


def test_service_that_is_not_there_asks_to_try_again(cli):
    ran = cli("score", SECRET, "--patience", "0.2", url=f"http://127.0.0.1:{free_port()}")
    assert "is the service running?" in refusal(ran, 3)


@pytest.mark.parametrize("command", ["status", "get", "cancel"])
def test_id_of_neither_a_job_nor_a_batch_is_reported_as_that(cli, command):
    assert "No job or batch has this ID" in refusal(cli(command, SECRET), 1)
    reply = json.loads(refusal(cli(command, SECRET, "--json"), 1))
    assert reply["error"]["type"] == "job_not_found"


def test_one_byte_is_not_in_the_plural(cli):
    assert b"1 byte, 1 character\n" in cli("score", "a").stdout


def test_errors_are_json_when_json_is_asked_for(cli):
    reply = json.loads(refusal(cli("score", "", "--json"), 1))
    assert reply["error"]["type"] == "empty_text"
    assert reply["exit_code"] == 1


def test_reader_that_closes_early_is_no_error():
    command = f"{sys.executable} -m evascore gen-data 100000 | head -1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY / "client", capture_output=True, check=True
    )
    assert ran.stderr == b""
    _, status = ran.stdout.splitlines()
    # As of a process that SIGPIPE ended.
    assert status == b"141"


@pytest.mark.parametrize("command", ["", "score", "next-chars", "bench", "gen-data", "doctor"])
def test_every_command_has_help(cli, command):
    ran = cli(*command.split(), "--help")
    assert ran.returncode == 0
    assert b"Usage: evascore" in ran.stdout


def test_shell_completion_is_there(capfd, monkeypatch):
    # The tests may run without a shell above them.
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    with pytest.raises(SystemExit, match="0"):
        main(["--show-completion", "bash"])
    assert "_EVASCORE_COMPLETE" in capfd.readouterr().out


# --- gen-data, bench, doctor ----------------------------------------------------------------------


def test_made_up_texts_are_all_scored(cli, tmp_path):
    assert cli("gen-data", "60", "--max-bytes", "200", "--out", "made").returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "made").read_bytes().splitlines()]
    assert [line["custom_id"] for line in lines] == [f"synthetic-0-{n}" for n in range(60)]
    assert any("text_b64" in line for line in lines)


def test_bench_counts_what_it_sent_and_draws_it(cli, tmp_path):
    ran = cli("bench", "--clients", "1,3", "--duration", "1", "--warm-up", "0.2", "--json",
              "--max-bytes", "100", "--svg", "plot.svg")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [load["load"] for load in found["loads"]] == ["1 client", "3 clients"]
    for load in found["loads"]:
        assert load["texts"] > 0
        assert load["p50_ms"] <= load["p95_ms"] <= load["p99_ms"]
        assert load["errors"] == {}
        assert 1 <= load["mean_batch_texts"] <= 3
    assert found["texts"]["max_bytes"] <= 100
    ElementTree.parse(tmp_path / "plot.svg")


def test_open_loop_sends_at_its_rate(cli):
    ran = cli("bench", "--rate", "30", "--duration", "2", "--warm-up", "0.2", "--json")
    (load,) = json.loads(ran.stdout)["loads"]
    # 60 are due on average; the seed is fixed.
    assert 40 < load["texts"] < 80


def test_bench_counts_errors_by_type(cli):
    ran = cli("bench", "--clients", "2", "--duration", "0.5", "--warm-up", "0", "--min-bytes",
              "40000", "--max-bytes", "50000", "--json")  # fmt: skip
    assert ran.returncode == 4
    (load,) = json.loads(ran.stdout)["loads"]
    assert load["errors"].keys() == {"text_too_large"}


def test_bench_spares_other_machines_without_remote(cli):
    assert "--remote" in refusal(cli("bench", url="http://192.0.2.1:8000"), 2)


def test_doctor_finds_the_service_well(cli):
    reply = json.loads(cli("doctor", "--json").stdout)["checks"]
    states = {check["name"]: check["state"] for check in reply}
    names = ["web server", "redis", "worker", "model", "queue", "scoring"]
    assert [check["name"] for check in reply] == names
    assert {states[name] for name in names} == {"ok"}


def test_doctor_says_what_to_do_about_a_service_that_is_not_there(cli):
    ran = cli("doctor", url=f"http://127.0.0.1:{free_port()}")
    assert ran.returncode == 1
    assert b"FAIL  web server" in ran.stdout
    assert b"is the service running? Start it with `make run`" in ran.stdout


def test_doctor_tells_plain_http_from_a_service_that_is_away(cli, scoring):
    ran = cli("doctor", url=scoring.url.replace("http:", "https:"))
    assert ran.returncode == 1
    (line,) = [line for line in ran.stdout.decode().splitlines() if line.startswith("FAIL")]
    assert f"give {scoring.url}." in line
    assert "start" not in line.lower()


def test_doctor_looks_at_the_machine_of_the_service(cli):
    reply = json.loads(cli("doctor", "--json", "--service-folder", str(REPOSITORY)).stdout)
    states = {check["name"]: check["state"] for check in reply["checks"]}
    assert states["settings"] == states["torch"] == states["bitsandbytes"] == "ok"
    assert states["disk"] in ("ok", "warning")
