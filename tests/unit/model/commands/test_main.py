"""The command line as a user runs it: a process with pipes."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from model.__main__ import main
from tests.conftest import HANG_S, killed_at_end

ROOT = Path(__file__).parents[4]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "model", *arguments]


@pytest.fixture(scope="module")
def score_tiny(tiny_checkpoint) -> list[str]:
    return command("score", "--model", str(tiny_checkpoint))


def run(arguments: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        arguments, input=stdin, capture_output=True, cwd=ROOT, timeout=HANG_S, check=False
    )


def test_lines_are_scored_and_failures_counted(score_tiny):
    lines = b'{"custom_id": "a", "text": "abc", "outputs": ["bytes"]}\nbroken\n'

    done = run([*score_tiny, "--dtype", "bfloat16", "--pass-bytes", "64"], lines)

    first, second = map(json.loads, done.stdout.splitlines())
    assert len(first["result"]["bytes"]["rank"]) == 3
    assert second["error"]["code"] == "malformed_body"
    # No progress bar is on stderr.
    assert done.stderr == b"model: 1 of 2 lines failed; their errors are in the output\n"
    assert done.returncode == 0


def test_next_characters_follow_every_line(tiny_checkpoint):
    arguments = command("next-chars", "-k", "2", "--model", str(tiny_checkpoint))

    done = run(arguments, b"abc\n\n\xff\r\n" + b"x" * 509 + b"\nlast")

    answers = list(map(json.loads, done.stdout.splitlines()))
    assert [len(each.get("characters", ())) for each in answers] == [2, 2, 2, 0, 2]
    assert answers[3]["error"]["code"] == "text_too_large"
    assert done.stderr == b"model: 1 of 5 lines failed; their errors are in the output\n"
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["score", "--model", "/nowhere/at/all"], 1, "no such folder"),
        (["score", "--device", "abacus"], 1, "device abacus: unknown"),
        (["score", "--pass-bytes", "0"], 2, "--pass-bytes"),
        (["score", "--pass-bytes", "2k"], 2, "give a whole number of at least 1"),
        (["next-chars", "-k", "101"], 2, "the limit is 100"),
        (["score", "--dtype", "x"], 2, "error: --dtype is 'x'; use "),
        ([], 2, "required"),
    ],
    ids=str,
)
def test_what_cannot_start_says_why_in_one_line(arguments, status, complaint, capsys):
    try:
        ended_with = main(arguments)
    except SystemExit as end:  # argparse ends the process itself
        ended_with = end.code

    written = capsys.readouterr()
    assert (ended_with, written.out) == (status, "")
    assert complaint in written.err.splitlines()[-1]


def test_reader_that_leaves_ends_it_quietly(score_tiny):
    started = subprocess.Popen(
        score_tiny,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    with killed_at_end(started) as process:
        assert process.stdout is not None
        process.stdout.close()  # before there is anything to write
        _, complaints = process.communicate(b'{"text": "abc"}\n' * 10, timeout=HANG_S)

    assert (process.returncode, complaints) == (141, b"")


def test_full_disk_is_reported_in_one_line(score_tiny):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            score_tiny,
            input=b'{"text": "abc"}\n',
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=HANG_S,
            check=False,
        )

    [line] = done.stderr.decode().splitlines()
    assert line.startswith("model: [Errno 28] No space left on device")
    assert done.returncode == 1


def test_interrupt_ends_it_quietly_and_a_terminal_sees_progress(score_tiny):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    started = subprocess.Popen(
        score_tiny,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        cwd=ROOT,
        # A shell that runs the tests in the background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    with killed_at_end(started) as process:
        seen = os.read(ours, 4096)  # the bar appears once the model is loaded
        process.send_signal(signal.SIGINT)
        status = process.wait(HANG_S)
    os.close(ours)

    assert status == 130
    assert b"B/s" in seen
