"""Ids, names and places of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.requests import byte_tokens
from contract.grammar.vocabulary import NUM_SPECIAL_IDS, VOCABULARY_SIZE


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_ids_of_a_text_give_it_back(text):
    ids = byte_tokens.encode(text)
    assert byte_tokens.decode_ids(ids) == text
    assert text in ("<bos>", "<eos>") or byte_tokens.to_bytes(ids) == text.encode()


@pytest.mark.parametrize(
    ("text", "ids"),
    [("<bos>", [1]), ("<eos>", [2]), ("", []), ("é", [64 + 0xC3, 64 + 0xA9]), ("\0", [64])],
)
def test_special_id_is_named_by_the_whole_text_only(text, ids):
    assert byte_tokens.encode(text) == ids
    assert len(byte_tokens.encode(f"z{text}")) == 1 + len(text.encode())


@pytest.mark.parametrize("ids", [[63], [64, 1], [320], [-1]], ids=str)
def test_special_ids_are_no_bytes(ids):
    with pytest.raises(ValueError, match="byte"):
        byte_tokens.to_bytes(ids)


def test_special_ids_appear_in_a_text_by_name():
    assert byte_tokens.decode_ids([1, 64 + 65, 2, 3, 64 + 0xFF]) == "<bos>A<eos><id:3>\ufffd"


def test_every_id_has_a_name_of_its_own():
    names = {byte_tokens.name_of(number - NUM_SPECIAL_IDS) for number in range(VOCABULARY_SIZE)}
    assert len(names) == VOCABULARY_SIZE


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_offsets_lead_to_the_character_of_each_byte(text):
    shown, offsets = byte_tokens.decode(text), byte_tokens.offsets(text)
    assert len(offsets) == len(text)
    assert sorted(set(offsets)) == list(range(len(shown)))
    for byte, offset in zip(text, offsets, strict=True):
        assert byte >= 0x80 or shown[offset] == chr(byte)
