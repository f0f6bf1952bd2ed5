"""The files of a bulk run: what is uploaded, what is kept after a crash, what is refused."""

import json
import stat
from codecs import BOM_UTF8

import pytest

from evascore.bulk import files as bulk_files
from evascore.bulk.files import (
    BulkRefused,
    State,
    Target,
    at_line,
    halves_of,
    lines_of,
    numbers_of,
    planned,
    rest_of,
)
from evascore.errors import UnexpectedAnswer
from evascore.readers.encodings import BYTES, UTF8
from evascore.readers.inputs import Input
from evascore.readers.packages import InputRefused


def given(path, content, form):
    path.write_bytes(content)
    return Input(str(path), form, path=path)


@pytest.fixture
def source(tmp_path):
    """Makes the input of a form."""
    return lambda form: given(tmp_path / "in", b"a\n\n  \nb\nc\nd\ne", form)


def result(index, status="SUCCESS"):
    return b'{"index":%d,"status":"%s","result":{}}\n' % (index, status.encode())


def uploaded(source, upload):
    return list(lines_of(source, upload))


def test_blank_lines_are_none_in_json_and_lines_in_text(source):
    assert planned(source("jsonl"), {}).num_lines == 5
    assert planned(source("text"), {}).num_lines == 7


def test_file_of_a_mark_alone_has_no_lines_of_json(tmp_path):
    path = tmp_path / "in"
    path.write_bytes(BOM_UTF8)
    lines = Input(str(path), "jsonl", UTF8, path)
    assert planned(lines, {}).num_lines == 0
    assert list(numbers_of(lines)) == []


def test_lines_of_text_become_json(tmp_path):
    content = '\ufeffü "x"\r\n\n\r'.encode() + b"\xff"
    path = tmp_path / "in"
    path.write_bytes(content)
    lines = Input(str(path), "text", BYTES, path)
    (upload,) = planned(lines, {}).uploads
    fields = [json.loads(line) for line in uploaded(lines, upload)]
    assert fields == [{"text": 'ü "x"'}, {"text": ""}, {"text_b64": "Df8="}]


def test_mark_is_skipped_at_the_beginning_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_files, "UPLOAD_LINES", 1)
    lines = given(tmp_path / "in", "\ufeffa\n\ufeffb\n".encode(), "text")
    uploads = planned(lines, {}).uploads
    texts = [json.loads(line)["text"] for each in uploads for line in uploaded(lines, each)]
    assert texts == ["a", "\ufeffb"]


def test_line_that_holds_a_mark_alone_is_not_sent(tmp_path):
    lines = given(tmp_path / "in", b'\xef\xbb\xbf\n{"text": "a"}\n', "jsonl")
    assert planned(lines, {}).num_lines == 1
    assert list(numbers_of(lines)) == [2]


@pytest.mark.parametrize(("byte", "name"), [(b"\xe9", "Latin-1"), (b"\x93", "Windows-1252")])
def test_text_in_another_encoding_is_refused_by_its_name(tmp_path, byte, name):
    lines = given(tmp_path / "in", b"abc\nab" + byte + b"\n", "text")
    with pytest.raises(InputRefused, match=f"line 2, byte 3. It may be in {name}"):
        planned(lines, {})


@pytest.mark.parametrize("form", ["jsonl", "text"])
@pytest.mark.parametrize("lines_each", [1, 2, 3, 100])
def test_uploads_together_are_the_file(source, monkeypatch, form, lines_each):
    whole = uploaded(source(form), planned(source(form), {}).uploads[0])
    monkeypatch.setattr(bulk_files, "UPLOAD_LINES", lines_each)
    state = planned(source(form), {})
    assert [line for upload in state.uploads for line in uploaded(source(form), upload)] == whole
    assert [upload.first for upload in state.uploads] == list(range(0, len(whole), lines_each))
    assert all(line.endswith(b"\n") for line in whole)


@pytest.mark.parametrize("form", ["jsonl", "text"])
def test_rest_of_an_upload_is_what_follows(source, form):
    (upload,) = planned(source(form), {}).uploads
    whole = uploaded(source(form), upload)
    for first in range(len(whole)):
        rest = rest_of(source(form), upload, first)
        assert uploaded(source(form), rest) == whole[first:]
        assert (rest.first, rest.end) == (first, upload.end)
        assert rest.key != upload.key


@pytest.mark.parametrize("form", ["jsonl", "text"])
def test_halves_of_an_upload_are_the_whole(source, form):
    (upload,) = planned(source(form), {}).uploads
    first, second = halves_of(source(form), upload)
    assert (first.first, first.end, second.end) == (0, second.first, upload.end)
    assert first.num_lines == upload.num_lines // 2
    halves = uploaded(source(form), first) + uploaded(source(form), second)
    assert halves == uploaded(source(form), upload)
    assert len({upload.key, first.key, second.key}) == 3


def test_empty_input_needs_no_upload(tmp_path):
    assert planned(given(tmp_path / "in", b"", "jsonl"), {}).uploads == []


def test_state_is_read_as_it_was_saved(source, tmp_path):
    state = planned(source("jsonl"), {"on_error": "skip"})
    state.uploads[0].batch_id = "abc"
    state.save(tmp_path / "state")
    assert State.load(tmp_path / "state") == state


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"version": 1}', b'{"version": 99}'])
def test_file_that_is_no_state_is_refused(tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(BulkRefused):
        State.load(tmp_path / "state")


def test_torn_last_line_is_cut_off(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(result(0) + result(1, "FAILURE") + result(2)[:-1])
    with Target(path) as target:
        assert (target.num_lines, target.num_failed) == (2, 1)
        target.append([result(2)], 0)
    assert path.read_bytes() == result(0) + result(1, "FAILURE") + result(2)


@pytest.mark.parametrize("content", [b"mine\n", result(1), result(0) + result(2)])
def test_file_of_something_else_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "out"
    path.write_bytes(content)
    with pytest.raises(BulkRefused, match="was not written by evascore bulk"):
        Target(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(("form", "numbers"), [("jsonl", [1, 4, 5, 6, 7]), ("text", range(1, 8))])
def test_scored_lines_know_their_places_in_the_file(source, form, numbers):
    assert list(numbers_of(source(form))) == list(numbers)


def test_only_an_error_that_names_a_line_is_given_another():
    refused = b'{"index":1,"status":"FAILURE","custom_id":"\\"line\\":3","error":{"line":2}}\n'
    assert at_line(refused, lambda: 104) == refused.replace(b'"line":2', b'"line":104')
    for other in (result(1), b'{"index":1,"status":"REVOKED","error":{}}\n', b"", b"{}"):
        assert at_line(other, pytest.fail) == other


def test_lines_of_a_later_upload_are_numbered_through(tmp_path):
    with Target(tmp_path / "out") as target:
        target.append([result(0), result(1)], 0)
        target.append([result(0), result(1)], 2)
    lines = (tmp_path / "out").read_bytes().splitlines()
    indexes = [json.loads(line)["index"] for line in lines]
    assert indexes == [0, 1, 2, 3]


@pytest.mark.parametrize("line", [result(1), result(0)[:-1], b"{}\n", b""])
def test_line_that_is_not_the_next_is_not_written(tmp_path, line):
    with Target(tmp_path / "out") as target, pytest.raises(UnexpectedAnswer):
        target.append([line], 0)
    assert (tmp_path / "out").read_bytes() == b""


def test_second_run_on_the_same_file_is_refused(tmp_path):
    with (
        Target(tmp_path / "out"),
        pytest.raises(BulkRefused, match="Another evascore bulk"),
    ):
        Target(tmp_path / "out")


def test_state_holds_no_text(tmp_path):
    planned(given(tmp_path / "in", b"a secret text\n", "text"), {}).save(tmp_path / "state")
    assert "secret" not in (tmp_path / "state").read_text()
    assert stat.S_ISREG((tmp_path / "state").stat().st_mode)
