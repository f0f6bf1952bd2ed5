"""EvaByte's vocabulary: 64 special ids, then the 256 byte values.

Arithmetic maps bytes to ids, never a tokenizer: a text that spells a special token, such as
`<bos>`, is a text.
"""

VOCABULARY_SIZE = 320
NUM_SPECIAL_IDS = 64
BOS_ID = 1
EOS_ID = 2


def encode(text: bytes) -> list[int]:
    """Return the ids that the model reads for `text`: the begin-of-text id, then one per byte."""
    return [BOS_ID, *(byte + NUM_SPECIAL_IDS for byte in text)]
