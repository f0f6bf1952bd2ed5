"""Converts between text, bytes and the model's ids: one id per byte.

Special ids have names. A name stands for its id only if it is the whole text, which is how lm-eval
asks for the ids. Inside a longer text a name is plain characters.
"""

from collections.abc import Sequence

from contract.grammar.vocabulary import BOS_ID, EOS_ID, NUM_SPECIAL_IDS

BOS, EOS = "<bos>", "<eos>"
_ID_BY_NAME = {BOS: BOS_ID, EOS: EOS_ID}
_NAME_BY_ID = {number: name for name, number in _ID_BY_NAME.items()}
# `surrogateescape` makes these of bytes that are not UTF-8.
_NO_CHARACTER = {0xDC00 + byte: "\ufffd" for byte in range(0x80, 0x100)}


def encode(text: str, *, add_bos: bool = False) -> list[int]:
    """Return the ids of `text`, or the special id that it names.

    With `add_bos`, the begin-of-text id comes first.
    """
    before = [BOS_ID] if add_bos else []
    if text in _ID_BY_NAME:
        return [*before, _ID_BY_NAME[text]]
    return [*before, *(byte + NUM_SPECIAL_IDS for byte in text.encode())]


def to_bytes(ids: Sequence[int]) -> bytes:
    """Return the bytes that `ids` stand for.

    Raises:
        ValueError: an id is not that of a byte.
    """
    return bytes([number - NUM_SPECIAL_IDS for number in ids])


def decode(text: bytes) -> str:
    """Return `text` as Unicode; a byte that is not UTF-8 becomes U+FFFD."""
    return text.decode(errors="surrogateescape").translate(_NO_CHARACTER)


def decode_ids(ids: Sequence[int]) -> str:
    """Return the text of `ids`; special ids become their names."""
    pieces, start = [], 0
    for place, number in enumerate((*ids, 0)):
        if number < NUM_SPECIAL_IDS:
            pieces += [decode(to_bytes(ids[start:place])), name_of(number - NUM_SPECIAL_IDS)]
            start = place + 1
    return "".join(pieces[:-1])


def offsets(text: bytes) -> list[int]:
    """Return, for each byte of `text`, the index of its character in `decode(text)`."""
    characters = text.decode(errors="surrogateescape")
    return [
        index
        for index, character in enumerate(characters)
        for _ in character.encode(errors="surrogateescape")
    ]


def name_of(byte: int) -> str:
    """Return the unique name of a byte, or of the special id `byte + 64` if `byte` is negative."""
    if byte < 0:
        number = byte + NUM_SPECIAL_IDS
        return _NAME_BY_ID.get(number, f"<id:{number}>")
    return chr(byte) if byte < 0x80 else f"byte:{byte:02x}"
