"""Large results: stored compressed, read back piece by piece."""

import orjson
import pytest

from contract.grammar.lines import whole_lines
from contract.messages import decode_record
from contract.stored_results import (
    APART_BYTES,
    PIECE_BYTES,
    decoded_pieces,
    encode_success,
    load_item,
)

MODEL = {"model": {"name": "m"}}
FACTS = {"num_bytes": 3}


def stored(result: dict):
    record, text = encode_success("id", result, FACTS, 1.0)
    return decode_record("id", record), text


def read_back(text: bytes) -> list[bytes]:
    return list(decoded_pieces(lambda at, length: text[at : at + length]))


def test_small_result_stays_in_its_record():
    record, text = stored({"v": "x" * 100, **MODEL})
    assert (record.result, record.apart, text) == ({"v": "x" * 100, **MODEL}, None, b"")


@pytest.mark.parametrize(
    "result",
    [
        {"v": "x" * APART_BYTES, **MODEL},
        {"v": list(range(200_000)), **MODEL},
        {"items": [{"result": {"v": n}} for n in range(3_000)], **MODEL},
        {"items": [{"result": "naïve\n" * 10_000}]},
    ],
)
def test_large_result_is_stored_apart_and_comes_back_whole(result):
    record, text = stored(result)
    pieces = read_back(text)
    assert record.result is None
    assert record.job == FACTS
    whole = b"".join(pieces)
    assert orjson.loads(whole) == result
    assert record.apart.num_bytes == sum(map(len, pieces)) > len(text)
    assert record.apart.num_errors == 0


def test_items_can_be_parsed_one_by_one():
    items = [{"result": {"v": n}} for n in range(3_000)]
    _, text = stored({"items": items, **MODEL})
    head, *lines, end = whole_lines(read_back(text))
    assert [load_item(line) for line in lines] == items
    assert orjson.loads(head + end) == {"items": [], **MODEL}


def test_result_that_compresses_ten_thousandfold_comes_in_small_pieces():
    _, text = stored({"v": "x" * 50_000_000, **MODEL})
    assert len(text) < 10_000
    assert max(map(len, read_back(text))) <= PIECE_BYTES


def test_failed_items_are_counted_and_have_lines_of_their_own():
    items = [{"result": "x" * APART_BYTES}, {"error": {"code": "model_error"}}]
    record, text = stored({"items": items, **MODEL})
    lines = b"".join(read_back(text)).split(b"\n")
    assert record.apart.num_errors == 1
    assert lines[2] == b'{"error":{"code":"model_error"}}'
