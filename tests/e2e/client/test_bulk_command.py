"""`evascore bulk` against the real service: killed, cut, resumed, complete and in order."""

import csv
import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
import pytest
import zstandard

import evascore
from contract.settings import REPOSITORY
from deploy.embedded_redis import free_port
from evascore.bulk import exports
from evascore.bulk import files as bulk_files
from evascore.cli.main import main
from tests.conftest import HANG_S, killed_at_end, wait_until
from tests.service import Service

NUM_LINES = 1500


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Made-up texts, one of them empty, in JSON lines."""
    path = tmp_path / "in.jsonl"
    assert main(["gen-data", str(NUM_LINES - 1), "--max-bytes", "120", "--out", str(path)]) == 0
    with path.open("a") as file:
        file.write('{"custom_id": "empty", "text": ""}')
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture(autouse=True)
def never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this process does not say that it waits, however long a busy machine needs."""
    monkeypatch.setattr("evascore.bulk.run.QUIET_S", HANG_S)


def begin(scoring: Service, source: Path, target: Path) -> subprocess.Popen[bytes]:
    """Start a run in a process of its own."""
    command = [sys.executable, "-m", "evascore", "bulk", str(source), str(target), "--resume"]
    return subprocess.Popen(
        [*command, "--url", scoring.url],
        cwd=REPOSITORY / "client",
        stderr=subprocess.PIPE,
        # A shell may have started the tests in the background, where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(scoring: Service, source: Path, target: Path, *options: str) -> int:
    """A run in this process, from its beginning to its end; its exit code."""
    return main(["bulk", str(source), str(target), "--url", scoring.url, *options])


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def assert_complete(source: Path, target: Path) -> None:
    """One line of results for each line, in order, each that of its text."""
    asked = [json.loads(line) for line in source.read_bytes().splitlines()]
    reply = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert [line["index"] for line in reply] == list(range(len(asked)))
    assert [line["custom_id"] for line in reply] == [line["custom_id"] for line in asked]
    for text, line in zip(asked, reply, strict=True):
        if text.get("text"):
            assert line["result"]["num_bytes"] == len(text["text"].encode())
    assert [line["custom_id"] for line in reply if line["status"] != "SUCCESS"] == ["empty"]


def worker_status(client: evascore.Client) -> dict[str, Any]:
    (worker,) = client.get("/stats")["workers"]
    return dict(worker)


def num_scored_with(client: evascore.Client, text: str) -> int:
    """Texts that the worker has scored, the last of them by this call; no other is as long."""
    num_bytes = client.score(text).num_bytes

    def is_counted() -> bool:
        recent = worker_status(client)["recent_batches"]
        return [1, num_bytes] in [each[:2] for each in recent]

    # The status is up to a second old. If it counts this text, it counts all before it too.
    wait_until(is_counted)
    return int(worker_status(client)["num_texts"])


def test_run_killed_twice_is_complete_and_scores_nothing_twice(scoring, source, target):
    with evascore.Client(scoring.url) as client:
        num_before = num_scored_with(client, "?" * 317)
        for share in (0.1, 0.4):
            # On a fast machine it may be complete before it is killed.
            with killed_at_end(begin(scoring, source, target)):
                wait_until(lambda share=share: num_lines(target) > share * NUM_LINES, HANG_S)
            with target.open("ab") as file:
                file.write(b'{"index":99999,"status":"SUC')
        assert run(scoring, source, target, "--resume") == 4
        assert_complete(source, target)
        # The empty line is not scored, the text that asks is.
        assert num_scored_with(client, "?" * 331) == num_before + NUM_LINES


def is_uploaded(target: Path) -> bool:
    """Whether the service has taken the lines of a run."""
    state = Path(f"{target}.state")
    return state.exists() and json.loads(state.read_text())["uploads"][0]["batch_id"] is not None


def test_interrupted_run_says_how_to_go_on(scoring, source, target):
    worker = scoring.part("worker")
    # Else all may be scored before the signal comes.
    worker.suspend()
    try:
        with killed_at_end(begin(scoring, source, target)) as process:
            wait_until(lambda: is_uploaded(target), HANG_S)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=HANG_S)
    finally:
        worker.resume()
    assert process.returncode == 130
    line = said.decode().splitlines()[-1]
    assert f"of {NUM_LINES:,} lines" in line
    assert line.endswith("Run the same command again to continue.")
    assert run(scoring, source, target, "--resume") == 4
    assert_complete(source, target)


def test_run_outlasts_the_web_server(scoring, source, target):
    worker = scoring.part("worker")
    # Else all may be scored before the web server is killed.
    worker.suspend()
    with killed_at_end(begin(scoring, source, target)) as process:
        try:
            wait_until(lambda: is_uploaded(target), HANG_S)
            scoring.part("web").kill()
        finally:
            worker.resume()
        wait_until(lambda: num_lines(target), HANG_S)
        scoring.part("web").kill()
        _, said = process.communicate(timeout=HANG_S)
    assert process.returncode == 4, said
    assert_complete(source, target)


def test_what_the_service_has_lost_is_uploaded_again(scoring, source, target):
    with killed_at_end(begin(scoring, source, target)):
        wait_until(lambda: num_lines(target), HANG_S)
    state = json.loads(Path(f"{target}.state").read_text())
    with evascore.Client(scoring.url) as client:
        client.erase_batch(state["uploads"][0]["batch_id"])
    assert run(scoring, source, target, "--resume") == 4
    assert_complete(source, target)


def test_large_file_goes_in_several_uploads(scoring, source, target, monkeypatch):
    monkeypatch.setattr(bulk_files, "UPLOAD_LINES", 350)
    assert run(scoring, source, target) == 4
    assert_complete(source, target)
    uploads = json.loads(Path(f"{target}.state").read_text())["uploads"]
    assert len(uploads) == 5
    with evascore.Client(scoring.url) as client, pytest.raises(evascore.JobGone):
        client.batch(uploads[0]["batch_id"])


def test_errors_name_lines_of_the_file(scoring, target, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_files, "UPLOAD_LINES", 2)
    bad, good = "not JSON", '{"text": "a"}'
    (tmp_path / "in").write_text("\n".join([good, "", bad, good, "  ", bad, bad, "", good]))
    assert run(scoring, tmp_path / "in", target) == 4
    reply = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert [line.get("error", {}).get("line") for line in reply] == [None, 3, None, 6, 7, None]


def test_complete_run_needs_the_service_no_more(scoring, source, target, capsys):
    assert run(scoring, source, target) == 4
    url = f"http://127.0.0.1:{free_port()}"
    arguments = ["bulk", str(source), str(target), "--resume", "--json", "--url", url]
    assert main([*arguments, "--patience", "0"]) == 4
    summary = json.loads(capsys.readouterr().out)
    (kind,) = summary.pop("errors")
    assert kind["first_custom_id"] == json.loads(source.read_bytes().splitlines()[-1])["custom_id"]
    assert summary.pop("model").startswith("small@")
    assert summary == {"num_lines": NUM_LINES, "num_failed": 1, "num_resumed": NUM_LINES}
    assert (kind["type"], kind["count"], kind["first_line"]) == ("empty_text", 1, NUM_LINES)


def test_lines_of_text_are_scored_one_by_one(scoring, target, tmp_path):
    (tmp_path / "in").write_bytes("eins\n\nzwölf\n".encode() + b"\xff\n")
    assert (
        run(
            scoring,
            tmp_path / "in",
            target,
            "--format",
            "text",
            "--encoding",
            "bytes",
            "-o",
            "bytes",
        )
        == 4
    )
    reply = [json.loads(line) for line in target.read_bytes().splitlines()]
    sizes = [line.get("result", {}).get("num_bytes") for line in reply]
    assert sizes == [4, None, 6, 1]
    assert len(reply[2]["result"]["bytes"]["rank"]) == 6


@pytest.mark.parametrize(
    ("prepare", "options", "exit_code", "said"),
    [
        (lambda source, target: target.write_text("x"), ["--resume"], 2, "is not empty"),
        (lambda source, target: target.write_text("x\n"), ["--overwrite"], 2, "not written by"),
        (lambda source, target: source.unlink(), [], 5, "No such file"),
        (lambda source, target: target.symlink_to(source), [], 2, "is also the input"),
        (lambda source, target: target.symlink_to("/dev/full"), [], 2, "not a regular file"),
        (lambda source, target: None, ["--resume", "--overwrite"], 2, "not both"),
        (lambda source, target: None, ["-o", "nothing"], 1, "outputs"),
    ],
    ids=[
        "foreign",
        "foreign lines",
        "no input",
        "same file",
        "odd target",
        "both",
        "unknown output",
    ],
)
def test_what_cannot_be_is_reported_in_one_line(
    scoring, source, target, capsys, prepare, options, exit_code, said
):
    prepare(source, target)
    assert run(scoring, source, target, *options) == exit_code
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert said in line


def test_run_that_was_begun_is_not_begun_again_unasked(scoring, target, tmp_path, capsys):
    (tmp_path / "in").write_text('{"text": "a"}\n')
    assert run(scoring, tmp_path / "in", target) == 0
    assert run(scoring, tmp_path / "in", target) == 2
    assert "Continue it with --resume, or start again with --overwrite." in capsys.readouterr().err
    assert run(scoring, tmp_path / "in", target, "--overwrite") == 0


def test_changed_input_is_not_gone_on_with(scoring, source, target, capsys):
    (source.parent / "short").write_text('{"text": "a"}\n')
    assert run(scoring, source.parent / "short", target) == 0
    assert run(scoring, source, target, "--resume") == 2
    assert "has changed" in capsys.readouterr().err


def test_full_disk_is_reported_and_the_run_goes_on_later(scoring, source, target):
    # A limit on the size of a file fails as a full disk does.
    limited = ["bash", "-c", 'ulimit -f 32; trap "" XFSZ; exec "$@"', "bash"]
    command = [sys.executable, "-m", "evascore", "bulk", str(source), str(target)]
    ran = subprocess.run(
        [*limited, *command, "--url", scoring.url],
        cwd=REPOSITORY / "client",
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )
    assert ran.returncode == 5
    # Before, on a busy machine, it may say that it waits.
    (line,) = [line for line in ran.stderr.decode().splitlines() if "Waiting: " not in line]
    assert "File too large" in line
    assert "with --resume to continue" in line
    assert 0 < num_lines(target) < NUM_LINES
    assert run(scoring, source, target, "--resume") == 4
    assert_complete(source, target)


@pytest.mark.parametrize(
    ("command", "named"), [("bulk in.jsonl -", "stdout"), ("score a", "The output")]
)
def test_stdout_that_cannot_be_written_is_named(scoring, source, tmp_path, command, named):
    ran = piped(scoring, f"evascore {command} > /dev/full", tmp_path)
    assert ran.returncode == 5
    assert ran.stderr.splitlines()[-1].startswith(f"evascore: {named}: No space left on device")


def results_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def piped(scoring: Service, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of a shell in which `evascore` is the client of the service."""
    run_it = f'evascore() {{ "{sys.executable}" -m evascore "$@"; }}; {command}'
    variables = {"EVASCORE_URL": scoring.url, "PYTHONPATH": str(REPOSITORY / "client")}
    return subprocess.run(
        ["env", *(f"{name}={value}" for name, value in variables.items()), "bash", "-c", run_it],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def test_dash_is_stdin_and_stdout(scoring, tmp_path):
    ran = piped(scoring, """printf '{"text":"one"}\\n' | gzip | evascore bulk - -""", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["result"]["num_bytes"] == 3
    assert list(tmp_path.iterdir()) == []


def test_process_substitution_is_read(scoring, tmp_path):
    ran = piped(scoring, """evascore bulk --format text <(printf 'a\\nbc\\n') out""", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert [line["result"]["num_bytes"] for line in results_of(tmp_path / "out")] == [1, 2]


def test_rows_of_a_corpus_are_scored_as_they_are(scoring, target, tmp_path, capsys):
    rows = [
        {"text": "one", "timestamp": "2019-04-25T12:57:54Z", "url": "http://example.org"},
        {"text": "two", "meta": {"pile_set_name": "s"}},
        {"id": "x1", "text": "three", "source": "s", "added": "2024"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(scoring, tmp_path / "in.jsonl", target) == 4
    assert "--text-field" in capsys.readouterr().err
    assert run(scoring, tmp_path / "in.jsonl", target, "--overwrite", "--text-field", "text") == 0
    assert [line["result"]["num_bytes"] for line in results_of(target)] == [3, 3, 5]
    with_ids = ["--overwrite", "--text-field", "text", "--id-field", "id"]
    assert run(scoring, tmp_path / "in.jsonl", target, *with_ids) == 4
    assert results_of(target)[2]["custom_id"] == "x1"


def test_errors_are_summed_up_by_kind_with_the_first_line_of_each(
    scoring, target, tmp_path, capsys
):
    good, empty, wide = '{"text":"a"}', '{"text":""}', '{"text":"a","top_k":999}'
    (tmp_path / "in").write_text("\n".join([good, "nonsense", empty, "", empty, wide, empty]))
    assert run(scoring, tmp_path / "in", target) == 4
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("is complete: 6 lines, 5 of them with an error.")
    assert "3 x empty_text, first in line 3: /text is empty" in said[1]
    assert any("1 x malformed_body, line 2:" in line and "--format text" in line for line in said)
    assert any("1 x invalid_request, line 6: /top_k must be at most 320" in line for line in said)
    assert len(said) == 4


def test_line_that_is_no_object_is_shown_the_form_of_one(scoring, target, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text('"a"\n"b"\n')
    assert run(scoring, tmp_path / "in.jsonl", target) == 4
    said = capsys.readouterr().err.splitlines()[1]
    reason = 'the line must be a JSON object, such as {"text": "any text"}'
    assert said.endswith(f"2 x invalid_request, first in line 1: {reason}")


def test_error_of_a_table_names_its_row_and_that_of_a_folder_its_file(
    scoring, target, tmp_path, capsys
):
    (tmp_path / "in.csv").write_text("id,text\n1,one\n2,two\n3,\n")
    assert run(scoring, tmp_path / "in.csv", target) == 4
    said = capsys.readouterr().err.splitlines()[1]
    assert said.endswith("1 x empty_text, row 3: /text is empty")
    (tmp_path / "texts" / "sub").mkdir(parents=True)
    for name, text in (("a.txt", "one"), ("sub/b.txt", ""), ("sub/c.txt", "")):
        (tmp_path / "texts" / name).write_text(text)
    for options in (["--overwrite"], ["--resume"]):
        assert run(scoring, tmp_path / "texts", target, *options) == 4
        said = capsys.readouterr().err.splitlines()[1]
        assert said.endswith("2 x empty_text, first in file sub/b.txt: /text is empty")


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "dataset", "jsonl.gz", "jsonl.zst"])
def test_output_in_another_form_has_a_row_for_each_text(scoring, tmp_path, form):
    (tmp_path / "in.csv").write_text('id,text\n1,"one, two"\n2,\n3,"a\nb"\n')
    out = tmp_path / (form if form == "dataset" else f"out.{form}")
    options = ["--id-field", "id", "--to", form] if form == "dataset" else ["--id-field", "id"]
    assert run(scoring, tmp_path / "in.csv", out, *options) == 4
    rows = rows_of(out, form)
    assert [row["custom_id"] for row in rows] == ["1", "2", "3"]
    assert [int(row["num_bytes"] or 0) for row in rows] == [8, 0, 3]
    assert rows[1]["error_type"] == "empty_text"
    assert float(rows[0]["bits_per_byte"]) > 0
    assert run(scoring, tmp_path / "in.csv", out, *options) == 2
    assert run(scoring, tmp_path / "in.csv", out, *options, "--resume") == 4
    assert run(scoring, tmp_path / "in.csv", out, *options, "--overwrite") == 4
    assert rows_of(out, form) == rows


def rows_of(out: Path, form: str) -> list[dict]:
    """Read an output as its users do."""
    if form in ("csv", "tsv"):
        with out.open(newline="") as file:
            return list(csv.DictReader(file, delimiter="," if form == "csv" else "\t"))
    if form == "parquet":
        return pyarrow.parquet.read_table(out).to_pylist()
    if form == "dataset":
        return list(datasets.load_from_disk(str(out)))
    content = out.read_bytes()
    lines = gzip.decompress(content) if form == "jsonl.gz" else unzstd(content)
    (tmp := out.with_name("unpacked")).write_bytes(lines)
    return list(exports.rows_of(tmp))


def unzstd(content: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(content)


def test_run_says_that_it_waits_for_a_worker_also_when_it_is_interrupted(tmp_path, source, target):
    service = Service(tmp_path / "service", lease_s=2)
    (tmp_path / "service").mkdir()
    service.start()
    try:
        service.part("worker").suspend()
        process = begin(service, source, target)
        assert process.stderr is not None
        # No worker is there once the lease of the suspended one has expired.
        first = process.stderr.readline().decode()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=HANG_S)
    finally:
        service.part("worker").resume()
        service.stop()
    assert "Waiting: " in first
    assert process.returncode == 130
    assert "while waiting: " in said.decode().splitlines()[-1]


def test_run_says_that_the_service_is_away(source, target, capsys):
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["bulk", str(source), str(target), "--url", url, "--patience", "1"]) == 3
    assert "Waiting: " in capsys.readouterr().err.splitlines()[0]


def test_run_says_that_the_queue_is_full(tmp_path, source, target):
    (tmp_path / "service").mkdir()
    service = Service(tmp_path / "service", max_queued_batches=1).start()
    try:
        service.part("worker").suspend()
        with evascore.Client(service.url) as client:
            client.submit_batch(["another text"])
        process = begin(service, source, target)
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        process.kill()
        process.communicate()
    finally:
        service.part("worker").resume()
        service.stop()
    assert "Waiting: " in said
    assert "batches fill" in said
