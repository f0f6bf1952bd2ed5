import io

import orjson
import pytest

from contract.errors import MalformedBody
from model.commands.predict_lines import predict_lines


def predictions(scorer, source: bytes, **options) -> tuple[tuple[int, int], list[dict]]:
    target = io.BytesIO()
    counts = predict_lines(io.BytesIO(source), target, scorer, 3, **options)
    return counts, [orjson.loads(line) for line in target.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"\xef\xbb\xbfa\r\n\r\nb\r", [b"a", b"", b"b\r"]),
        (b"\x00\xff\n\xe2\x82", [b"\x00\xff", b"\xe2\x82"]),
        (b"x" * 508 + b"\ny", [b"x" * 508, b"y"]),
    ],
    ids=["nothing", "empty-line", "no-newline", "newline", "windows", "bytes", "limit"],
)
def test_each_line_without_its_newline_is_a_text(scorer, source, texts):
    counts, answers = predictions(scorer, source)

    assert counts == (len(texts), 0)
    assert answers == scorer.predict_characters(texts, 3)


def test_line_of_windows_may_fill_the_context(scorer):
    counts, _ = predictions(scorer, b"\xef\xbb\xbf" + b"x" * 508 + b"\r\n")

    assert counts == (1, 0)


@pytest.mark.parametrize(("encoding", "name"), [("utf-16", "UTF-16"), ("utf-32", "UTF-32")])
def test_stream_in_another_encoding_is_refused_by_its_name(scorer, encoding, name):
    with pytest.raises(MalformedBody, match=f"is {name}, not UTF-8; save it as UTF-8"):
        predictions(scorer, "eins\n".encode(encoding))


@pytest.mark.parametrize("length", [509, 510, 511, 512, 2000])
def test_line_beyond_the_context_is_refused_alone(scorer, length):
    counts, answers = predictions(scorer, b"a\n" + b"x" * length + b"\nb\n")

    assert counts == (3, 1)
    assert [set(answer) == {"error"} for answer in answers] == [False, True, False]


def test_answers_come_while_lines_are_still_read(scorer):
    """What was gathered is answered before the source has ended."""
    answered_at = []

    class Source(io.BytesIO):
        def readline(self, size: int = -1) -> bytes:
            answered_at.append(target.tell())
            return super().readline(size)

    target = io.BytesIO()
    predict_lines(Source((b"x" * 400 + b"\n") * 200), target, scorer, 1)

    assert 0 < answered_at[-1] < target.tell()
