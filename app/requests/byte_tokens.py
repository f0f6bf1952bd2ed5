"""Between text, bytes and the model's ids: one id per byte, by arithmetic.

The special ids have names of their own. In a text a name is nothing but its characters; it stands
for its id only where it is the whole text, which is how lm-eval asks for the ids.
"""

from collections.abc import Sequence

from contract.grammar.vocabulary import BOS_ID, EOS_ID, NUM_SPECIAL_IDS

BOS, EOS = "<bos>", "<eos>"
_ID_BY_NAME = {BOS: BOS_ID, EOS: EOS_ID}
_NAME_BY_ID = {number: name for name, number in _ID_BY_NAME.items()}
# What `surrogateescape` makes of a byte that is part of no character.
_NO_CHARACTER = {0xDC00 + byte: "\ufffd" for byte in range(0x80, 0x100)}


def encode(text: str) -> list[int]:
    """The ids of `text`, or the special id that it names."""
    if text in _ID_BY_NAME:
        return [_ID_BY_NAME[text]]
    return [byte + NUM_SPECIAL_IDS for byte in text.encode()]


def to_bytes(ids: Sequence[int]) -> bytes:
    """The bytes that `ids` stand for.

    Raises:
        ValueError: an id is that of no byte.
    """
    return bytes([number - NUM_SPECIAL_IDS for number in ids])


def decode(text: bytes) -> str:
    """`text` as Unicode; a byte that is part of no UTF-8 character becomes U+FFFD."""
    return text.decode(errors="surrogateescape").translate(_NO_CHARACTER)


def decode_ids(ids: Sequence[int]) -> str:
    """The text of `ids`, special ids by their names."""
    pieces, start = [], 0
    for place, number in enumerate((*ids, 0)):
        if number < NUM_SPECIAL_IDS:
            pieces += [decode(to_bytes(ids[start:place])), name_of(number - NUM_SPECIAL_IDS)]
            start = place + 1
    return "".join(pieces[:-1])


def offsets(text: bytes) -> list[int]:
    """For each byte of `text` the index of the character of `decode(text)` that it belongs to."""
    characters = text.decode(errors="surrogateescape")
    return [
        index
        for index, character in enumerate(characters)
        for _ in character.encode(errors="surrogateescape")
    ]


def name_of(byte: int) -> str:
    """The token of a byte, or of the special id `byte + 64` if `byte` is negative; all differ."""
    if byte < 0:
        number = byte + NUM_SPECIAL_IDS
        return _NAME_BY_ID.get(number, f"<id:{number}>")
    return chr(byte) if byte < 0x80 else f"byte:{byte:02x}"
