"""Files as people have them: compressed, tables, folders, other encodings."""

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
import os
import sys
import threading
import uuid

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard

from evascore.bulk.files import planned
from evascore.readers.encodings import codec_of
from evascore.readers.inputs import STDIN, Reading, opened_input
from evascore.readers.packages import InputRefused, package
from evascore.readers.tables import Columns

LINES = b'{"text":"one"}\n{"text":"two"}\n'
ROWS = [{"id": 1, "body": "one", "x": 0}, {"id": 2, "body": "zwölf\n", "x": 1}]
COLUMNS = Columns("body", "id")
READ = [{"custom_id": "1", "text": "one"}, {"custom_id": "2", "text": "zwölf\n"}]


def lines_of(source, tmp_path, reading=None):
    """The lines that a run would send, and how the service reads them."""
    with opened_input(source, reading or Reading(), tmp_path) as lines, lines.open() as file:
        read, at = [], 0
        for line in file:
            if lines.is_scored(line):
                read.append(json.loads(lines.as_json(line, is_first=at == 0)))
            at += len(line)
        return read, lines.params


def read_of(source, tmp_path, *, columns=None, **how):
    return lines_of(source, tmp_path, Reading(columns=columns or Columns(), **how))[0]


def file_of(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


COMPRESSED = {
    "gz": gzip.compress(LINES),
    "gz-members": gzip.compress(LINES[:15]) + gzip.compress(LINES[15:]),
    "gz-padding": gzip.compress(LINES) + bytes(512),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress(LINES),
    "zst-frames": zstandard.compress(LINES[:15]) + zstandard.compress(LINES[15:]),
    # As pzstd writes it.
    "zst-skippable": b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstandard.compress(LINES),
    "bz2": bz2.compress(LINES),
    "bz2-streams": bz2.compress(LINES[:15]) + bz2.compress(LINES[15:]) + bytes(512),
    "xz": lzma.compress(LINES),
    "xz-padding": lzma.compress(LINES[:15]) + bytes(8) + lzma.compress(LINES[15:]) + bytes(4),
    "plain": LINES,
}


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in"])
@pytest.mark.parametrize("content", COMPRESSED.values(), ids=COMPRESSED)
def test_compressed_file_is_read_whatever_its_name(tmp_path, name, content):
    source = file_of(tmp_path, name, content)
    assert read_of(source, tmp_path) == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize("kind", ["gz", "zst", "bz2", "xz"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_file_is_refused_and_not_read_in_part(tmp_path, kind, damage):
    whole = COMPRESSED[kind]
    middle = len(whole) // 2
    content = whole[:-3] if damage == "cut" else whole[:middle] + b"\xff\xff" + whole[middle + 2 :]
    with pytest.raises(InputRefused, match="damaged or incomplete"):
        read_of(file_of(tmp_path, f"in.jsonl.{kind}", content), tmp_path)


@pytest.mark.parametrize(
    "compress", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress]
)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_file_whose_second_stream_has_a_damaged_header_is_refused(tmp_path, compress, index):
    second = bytearray(compress(LINES[15:]))
    second[index] ^= 1
    source = file_of(tmp_path, "in.jsonl", compress(LINES[:15]) + second)
    with pytest.raises(InputRefused, match="damaged or incomplete"):
        read_of(source, tmp_path)


@pytest.mark.parametrize(
    "compress", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress]
)
def test_text_far_larger_than_its_compressed_form_is_read_whole(tmp_path, compress):
    source = file_of(tmp_path, "in.txt", compress(b"a" * 3_000_001) + compress(b"\nb"))
    first, second = (line["text"] for line in read_of(source, tmp_path))
    assert (first == "a" * 3_000_001, second) == (True, "b")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PK\x03\x04rest", "zip archive"), (b"%PDF-1.7", "PDF"), (b"\xd0\xcf\x11\xe0", "Office")],
)
def test_file_that_is_no_text_is_named(tmp_path, content, said):
    with pytest.raises(InputRefused, match=said):
        read_of(file_of(tmp_path, "in.jsonl", content), tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "text"])
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_utf_16_is_refused_by_its_name(tmp_path, kind, codec, suffix):
    content = LINES.decode().encode(codec)
    content = gzip.compress(content) if suffix else content
    with pytest.raises(InputRefused, match="UTF-16"):
        read_of(file_of(tmp_path, f"in{suffix}", content), tmp_path, kind=kind)


# The same texts in each form that has an encoding.
ENCODED = {
    "in.txt": "one\ntwo\n",
    "in.jsonl": LINES.decode(),
    "in.csv": "text,x\none,1\ntwo,2\n",
    "in.json": '[{"text": "one"},\n{"text": "two"}]',
    "folder/in.txt": "one",
}


def encoded_file(tmp_path, name, codec, mark=""):
    """A file of `ENCODED`, or its folder."""
    (tmp_path / "folder").mkdir(exist_ok=True)
    path = file_of(tmp_path, name, (mark + ENCODED[name]).encode(codec))
    return path.parent if path.parent != tmp_path else path


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_encoding_that_is_advised_reads_a_file_without_a_mark(tmp_path, name, codec):
    source = encoded_file(tmp_path, name, codec)
    with pytest.raises(InputRefused, match="give --encoding") as said:
        read_of(source, tmp_path)
    advised = str(said.value).rpartition("--encoding ")[2].rstrip(".")
    texts = [line["text"] for line in read_of(source, tmp_path, encoding=codec_of(advised))]
    assert texts == (["one"] if source.is_dir() else ["one", "two"])


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("width", ["utf-16", "utf-32"])
@pytest.mark.parametrize("order", ["le", "be"])
def test_file_whose_byte_order_is_not_known_is_refused(tmp_path, name, width, order):
    source = encoded_file(tmp_path, name, f"{width}-{order}")
    with pytest.raises(InputRefused, match=f"may be in {width}-le or {width}-be"):
        read_of(source, tmp_path, encoding=codec_of(width))


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-be"])
def test_byte_order_mark_is_no_part_of_a_text_or_name(tmp_path, name, codec):
    source = encoded_file(tmp_path, name, codec, mark="\ufeff")
    for encoding in (codec, codec[:6]) if codec != "utf-8" else (codec,):
        texts = [line["text"] for line in read_of(source, tmp_path, encoding=codec_of(encoding))]
        assert texts == (["one"] if source.is_dir() else ["one", "two"])


@pytest.mark.parametrize(("name", "kind"), [("in.txt", "auto"), ("in.json", "json")])
def test_json_lines_are_recognized_in_a_named_encoding(tmp_path, name, kind):
    source = file_of(tmp_path, name, LINES.decode().encode("utf-16"))
    read = read_of(source, tmp_path, kind=kind, encoding=codec_of("utf-16"))
    assert read == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize(
    ("text", "codec"),
    [("\ufeffé\r\nü", "utf-16"), ("é\r\nü\r\n", "latin-1"), ("“é\r\nü", "cp1252")],
)
def test_text_in_a_named_encoding_is_converted(tmp_path, text, codec):
    source = file_of(tmp_path, "in.txt", text.encode(codec))
    texts = [line["text"] for line in read_of(source, tmp_path, encoding=codec_of(codec))]
    assert texts == text.removeprefix("\ufeff").split()


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_json_lines_in_a_named_encoding_are_converted(tmp_path, name):
    content = '{"text":"é"}\r\n{"text":"ü"}'.encode("utf-16")
    source = file_of(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)
    read = read_of(source, tmp_path, encoding=codec_of("utf-16"))
    assert read == [{"text": "é"}, {"text": "ü"}]


def test_compressed_text_is_checked_as_plain_text_is(tmp_path):
    source = file_of(tmp_path, "in.txt.gz", gzip.compress("\ufeffé\r\nü\r\n".encode()))
    assert read_of(source, tmp_path) == [{"text": "é"}, {"text": "ü"}]
    source = file_of(tmp_path, "latin.txt.gz", gzip.compress("a\né".encode("latin-1")))
    with pytest.raises(InputRefused, match=r"line 2, byte 1\. It may be in Latin-1"):
        read_of(source, tmp_path)


@pytest.mark.parametrize("encoding", ["no-such-codec", "hex", "rot13", "undefined"])
def test_codec_that_is_no_encoding_of_text_is_refused(encoding):
    with pytest.raises(InputRefused, match="No such encoding"):
        codec_of(encoding)


def test_carriage_return_without_a_line_end_stays(tmp_path):
    source = file_of(tmp_path, "in.txt", "a\rb\r\nc\r".encode("utf-16"))
    read = read_of(source, tmp_path, encoding=codec_of("utf-16"))
    assert [line["text"] for line in read] == ["a\rb", "c\r"]


@pytest.mark.parametrize("num_lines", [2, 3000])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".txt.gz", ".jsonl.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "mac-roman", "utf-16"])
def test_old_line_ends_are_named(tmp_path, num_lines, suffix, encoding):
    content = ('{"text": "é"}\r' * num_lines).encode(encoding)
    content = gzip.compress(content) if suffix.endswith(".gz") else content
    source = file_of(tmp_path, f"in{suffix}", content)
    kind = "text" if ".txt" in suffix else "jsonl"
    reading = Reading(kind, encoding=codec_of(encoding))
    with (
        pytest.raises(InputRefused, match="carriage returns alone"),
        opened_input(source, reading, tmp_path) as lines,
    ):
        planned(lines, {})


@pytest.mark.parametrize("end", ["", "\r"])
def test_one_line_without_a_newline_is_a_line(tmp_path, end):
    source = file_of(tmp_path, "in.txt", b"a" * 5000 + end.encode())
    assert read_of(source, tmp_path) == [{"text": "a" * 5000 + end}]


@pytest.mark.parametrize("num_rows", [2, 3000])
def test_table_may_end_its_lines_with_carriage_returns(tmp_path, num_rows):
    source = file_of(tmp_path, "in.csv", b"text,x\r" + b"one,1\r" * num_rows)
    assert read_of(source, tmp_path) == [{"text": "one"}] * num_rows


def test_txt_file_with_json_lines_is_read_as_json(tmp_path):
    assert read_of(file_of(tmp_path, "in.txt", LINES), tmp_path)[0] == {"text": "one"}


@pytest.mark.parametrize("form", ["csv", "csv-excel", "tsv", "json", "parquet", "arrow", "feather"])
def test_table_gives_text_and_id_of_each_row(tmp_path, form):
    source = tmp_path / f"in.{form.removesuffix('-excel')}"
    table = pyarrow.Table.from_pylist(ROWS)
    if form == "parquet":
        pyarrow.parquet.write_table(table, source)
    elif form == "feather":
        pyarrow.feather.write_feather(table, source)
    elif form == "arrow":
        with pyarrow.ipc.new_stream(source, table.schema) as writer:
            writer.write_table(table)
    elif form == "json":
        source.write_text(json.dumps(ROWS))
    else:
        sep = {"csv": ",", "csv-excel": ";", "tsv": "\t"}[form]
        rows = f'id{sep}body{sep}x\r\n1{sep}one{sep}0\r\n2{sep}"zwölf\n"{sep}1\r\n'
        source.write_bytes(b"\xef\xbb\xbf" + rows.encode())
    read, params = lines_of(source, tmp_path, Reading(columns=COLUMNS))
    if form == "json":
        # The service reads the columns, as of JSON lines.
        assert (read, params) == (ROWS, {"text_field": "body", "id_field": "id"})
    else:
        assert (read, params) == (READ, {})


def test_row_with_more_cells_than_the_header_is_refused_and_not_cut(tmp_path):
    source = file_of(tmp_path, "in.csv", b'text\n"one, two"\nthree,\nfour, five\n')
    with pytest.raises(InputRefused, match=r"line 4: .* contain a comma in quotes") as said:
        read_of(source, tmp_path)
    assert "four" not in str(said.value)
    source.write_bytes(b'text\n"one, two"\nthree,\n')
    assert read_of(source, tmp_path) == [{"text": "one, two"}, {"text": "three"}]


@pytest.mark.parametrize("sep", [",", ";"])
def test_name_of_a_column_may_hold_line_ends(tmp_path, sep):
    rows = f'text{sep}"other\r\ncolumn\n"\r\none{sep}1\r\ntwo{sep}2\r\n'
    source = file_of(tmp_path, "in.csv", rows.encode())
    assert read_of(source, tmp_path) == [{"text": "one"}, {"text": "two"}]
    source.write_text(f"{rows}three{sep}3{sep}4\n", newline="")
    with pytest.raises(InputRefused, match="line 6: the row has more cells"):
        read_of(source, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n"])
def test_table_without_columns_is_refused_as_such(tmp_path, content):
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(InputRefused, match="has no columns;"):
        read_of(tmp_path / "in.csv", tmp_path)


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
@pytest.mark.parametrize(
    ("columns", "twice"),
    [(Columns(), "text"), (Columns(id="id"), "text"), (Columns("x", "id"), "id")],
)
def test_column_that_stands_twice_is_refused_where_it_is_read(tmp_path, form, columns, twice):
    names = ["text", "id", "text", "x", "id"]
    source = tmp_path / f"in.{form}"
    table = pyarrow.table([["a"], ["1"], ["b"], ["c"], ["2"]], names=names)
    if form == "parquet":
        pyarrow.parquet.write_table(table, source)
    elif form == "arrow":
        pyarrow.feather.write_feather(table, source)
    else:
        source.write_text(",".join(names) + "\na,1,b,c,2\n")
    with pytest.raises(InputRefused, match=f"several columns {twice};"):
        read_of(source, tmp_path, columns=columns)
    if form == "csv":
        assert read_of(source, tmp_path, columns=Columns("x")) == [{"text": "c"}]


@pytest.mark.parametrize("row", [{"text": "a"}, {"text": "a", "meta": {"id": 1}}])
def test_json_array_whose_object_names_a_field_twice_is_refused(tmp_path, row):
    line = json.dumps(row).replace("}", ', "id": 2, "id": 3}', 1)
    source = file_of(tmp_path, "in.json", f'[{{"text": "b"}}, {line}]'.encode())
    with pytest.raises(InputRefused, match="names a field twice"):
        read_of(source, tmp_path)


def test_json_array_that_is_nested_too_deeply_is_refused(tmp_path):
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(InputRefused, match="nested too deeply"):
        read_of(file_of(tmp_path, "in.json", deep), tmp_path)


def test_json_line_that_is_nested_too_deeply_is_left_to_the_service(tmp_path):
    line = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    source = file_of(tmp_path, "in.json", line)
    with opened_input(source, Reading(kind="json"), tmp_path) as lines, lines.open() as file:
        assert file.read() == line


def test_stdin_can_be_a_json_array(tmp_path, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(ROWS).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read_of(STDIN, tmp_path, kind="json") == ROWS


def test_stdin_of_kind_json_can_be_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES)))
    assert read_of(STDIN, tmp_path, kind="json") == [{"text": "one"}, {"text": "two"}]


def test_long_first_line_of_a_json_file_is_a_line(tmp_path):
    rows = [{"text": "long " * 100_000}, {"text": "two"}]
    source = file_of(tmp_path, "in.json", "\n".join(map(json.dumps, rows)).encode())
    assert read_of(source, tmp_path) == rows


@pytest.mark.parametrize("content", [b'{\n  "rows": []\n}\n', b'{"text": "a"\n}'])
def test_json_object_over_several_lines_is_refused_as_a_whole(tmp_path, content):
    with pytest.raises(InputRefused, match="must be JSON lines, or a JSON array"):
        read_of(file_of(tmp_path, "in.json", content), tmp_path, kind="json")


def test_dataset_on_disk_is_read_and_several_splits_are_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(str(tmp_path / "one"))
    assert read_of(tmp_path / "one", tmp_path, columns=COLUMNS) == READ
    datasets.DatasetDict({"test": dataset}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(InputRefused, match="splits/test"):
        read_of(tmp_path / "splits", tmp_path, columns=COLUMNS)


@pytest.mark.parametrize("saved_as", ["numpy", "pandas", "arrow", "torch"])
def test_dataset_is_read_alike_whatever_format_it_was_saved_with(tmp_path, saved_as):
    datasets = pytest.importorskip("datasets")
    rows = [{"text": "a", "id": 1}, {"text": None, "id": None}]
    dataset = datasets.Dataset.from_list(rows).with_format(saved_as, columns=["id"])
    dataset.save_to_disk(str(tmp_path / "in"))
    assert read_of(tmp_path / "in", tmp_path, columns=Columns(id="id")) == [
        {"custom_id": "1", "text": "a"},
        {"custom_id": "", "text": None},
    ]


UUID = "0191d6a2-7c1e-7000-8000-0123456789ab"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"x1", "x1"),
        ("x1", "x1"),
        (7, "7"),
        (decimal.Decimal("7.50"), "7.50"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (uuid.UUID(UUID), UUID),
    ],
    ids=str,
)
def test_id_of_a_table_is_written_as_others_write_it(tmp_path, value, read):
    kind = pyarrow.uuid() if isinstance(value, uuid.UUID) else None
    stored = value.bytes if kind else value
    table = pyarrow.table({"text": ["a"], "custom_id": pyarrow.array([stored], kind)})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    assert read_of(tmp_path / "in.parquet", tmp_path) == [{"custom_id": read, "text": "a"}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\xff", "not UTF-8"),
        (True, "type bool, not IDs"),
        ([1], "type list, not IDs"),
        ({"a": 1}, "type dict, not IDs"),
    ],
)
def test_column_without_ids_is_refused(tmp_path, value, said):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "id": [value]}), tmp_path / "in")
    with pytest.raises(InputRefused, match=f"column id holds .*{said}"):
        read_of(tmp_path / "in", tmp_path, columns=Columns(id="id"))


def test_missing_values_are_rows_of_their_own(tmp_path):
    table = pyarrow.table({"text": ["a", None, ""], "custom_id": [1.0, None, float("nan")]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    read = read_of(tmp_path / "in.parquet", tmp_path)
    assert read == [
        {"custom_id": "1.0", "text": "a"},
        {"custom_id": "", "text": None},
        {"custom_id": "", "text": ""},
    ]


def test_unknown_column_is_refused_with_those_that_there_are(tmp_path):
    source = file_of(tmp_path, "in.csv", b"id,a secret text!\n1,2\n")
    with pytest.raises(InputRefused, match="one of: id, 1 whose names are not plain words") as said:
        read_of(source, tmp_path, columns=Columns("body"))
    assert "secret" not in str(said.value)


def test_column_without_texts_is_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "in.parquet")
    with pytest.raises(InputRefused, match="column x holds values of the type int"):
        read_of(tmp_path / "in.parquet", tmp_path, columns=Columns("x"))


def test_folder_gives_one_text_for_each_file(tmp_path):
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    file_of(folder, "b.txt", b"\xef\xbb\xbftwo\r\nlines\r\n")
    file_of(folder / "deep", "a.txt.gz", gzip.compress(b"one"))
    file_of(folder, ".hidden.txt", b"no")
    file_of(folder, "README.md", b"no")
    assert read_of(folder, tmp_path) == [
        {"custom_id": "b.txt", "text": "two\nlines\n"},
        {"custom_id": "deep/a.txt.gz", "text": "one"},
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_name_that_is_not_utf8_gives_an_id_with_its_bytes(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"one")
    file_of(folder, "zwölf.txt", b"two")
    assert read_of(folder, tmp_path) == [
        {"custom_id": "caf\\xe9.txt", "text": "one"},
        {"custom_id": "zwölf.txt", "text": "two"},
    ]


def test_folder_of_shards_is_read_in_the_order_of_their_names(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    file_of(folder, "2.jsonl.zst", zstandard.compress(b'{"text":"b"}'))
    file_of(folder, "1.jsonl.gz", gzip.compress(b'{"text":"a"}'))
    assert [line["text"] for line in read_of(folder, tmp_path)] == ["a", "b"]
    file_of(folder, "0.csv", b"text\nc\n")
    with pytest.raises(InputRefused, match="several kinds"):
        read_of(folder, tmp_path)
    assert read_of(folder, tmp_path, kind="csv") == [{"text": "c"}]


def test_json_files_of_a_folder_hold_arrays_or_lines(tmp_path):
    folder = tmp_path / "c4"
    folder.mkdir()
    file_of(folder, "1.json.gz", gzip.compress(LINES))
    file_of(folder, "2.json", b'\n[{"text": "three"}]')
    assert [line["text"] for line in read_of(folder, tmp_path)] == ["one", "two", "three"]


@pytest.mark.parametrize("kind", ["text", "jsonl", "csv"])
def test_folder_without_files_of_the_format_is_refused(tmp_path, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    file_of(folder, "notes.md", b"text")
    with pytest.raises(InputRefused, match=f"no files of the format {kind}"):
        read_of(folder, tmp_path, kind=kind)


def test_pipe_is_read_like_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[COMPRESSED["gz"]])
    writer.start()
    assert len(read_of(tmp_path / "pipe", tmp_path)) == 2
    writer.join()


def test_stdin_can_be_no_table(tmp_path):
    with pytest.raises(InputRefused, match="save a table to a file first"):
        read_of(STDIN, tmp_path, kind="csv")


def test_package_that_is_missing_is_named_with_its_extra():
    with pytest.raises(InputRefused, match=r"needs the package no_such.*evascore\[parquet\]"):
        package("no_such.part", "parquet", "in.parquet is a Parquet file")
