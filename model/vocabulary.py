"""EvaByte's vocabulary: 64 special ids, then the 256 byte values.

Bytes are mapped by arithmetic, never by a tokenizer: a text that spells a special token, such as
`<bos>`, is a text.
"""

VOCABULARY_SIZE = 320
NUM_SPECIAL_IDS = 64
BOS_ID = 1


def encode(text: bytes) -> list[int]:
    """Return the ids of `text` after the id that marks the beginning, as the model reads them."""
    return [BOS_ID, *(byte + NUM_SPECIAL_IDS for byte in text)]
