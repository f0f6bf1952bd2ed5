"""`score` and `next-chars` read compressed text files, and text in other encodings."""

import gzip
import json
from pathlib import Path

import pytest

from evascore.cli.main import main
from tests.service import Service


@pytest.fixture
def ev(scoring: Service, capsys: pytest.CaptureFixture[str]):
    """Runs a command; gives its exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([*map(str, arguments), "--url", scoring.url])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b"one\ntwo\n", []),
        (b"\xef\xbb\xbfone\r\ntwo\r\n", []),
        (gzip.compress(b"one\r\ntwo"), []),
        ("one\r\ntwo\r\n".encode("utf-16"), ["--encoding", "utf-16"]),
    ],
    ids=["unix", "windows", "gzip", "utf-16"],
)
def test_next_characters_are_those_after_the_words(ev, tmp_path, content, options):
    (tmp_path / "in.txt").write_bytes(content)
    code, out, _ = ev("next-chars", "--file", tmp_path / "in.txt", "-k", 2, *options)
    expected = [json.loads(ev("next-chars", word, "-k", 2, "--json")[1]) for word in ("one", "two")]
    assert code == 0
    likeliest = [[char for char, _ in json.loads(line)["characters"]] for line in out.splitlines()]
    assert likeliest == [[char for char, _ in each["characters"]] for each in expected]


@pytest.mark.parametrize("command", ["score", "next-chars"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("café\n".encode("utf-16"), "is in UTF-16"),
        ("café\n".encode("latin-1"), "It may be in Latin-1"),
        (b"PK\x03\x04", "is a zip archive"),
    ],
    ids=["utf-16", "latin-1", "zip"],
)
def test_other_file_is_refused_by_its_name(ev, tmp_path, command, content, said):
    (tmp_path / "in.txt").write_bytes(content)
    code, _, err = ev(command, "--file", tmp_path / "in.txt")
    assert code == 2
    assert said in err


def test_scored_file_has_no_mark_and_its_line_ends_are_reported(ev, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    code, out, err = ev("score", "--json", "--file", tmp_path / "in.txt")
    assert (code, json.loads(out)["num_bytes"]) == (0, 8)
    assert "CR LF (Windows)" in err


def test_bytes_are_scored_as_they_are_when_asked(ev, tmp_path):
    (tmp_path / "in.bin").write_bytes(b"\xff\xfe\0\r")
    code, out, _ = ev("score", "--json", "--encoding", "bytes", "--file", tmp_path / "in.bin")
    assert (code, json.loads(out)["num_bytes"]) == (0, 4)
