"""Converts text to EvaByte's ids as a transformers tokenizer: one id per byte of UTF-8.

The names are those of the published tokenizer. By default a text that spells such a name is a text,
as for the service; `split_special_tokens=False` makes names in a text special ids.
"""

from typing import Any

from transformers import AddedToken, PreTrainedTokenizer

from contract.grammar.vocabulary import BOS_ID, NUM_SPECIAL_IDS, VOCABULARY_SIZE

_FIRST_NAMES = (
    *("<pad>", "<bos>", "<eos>", "<unk>", "<sep>", "<repo_name>", "<file_sep>"),
    *("<t2v_token>", "<v2t_token>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
# The name of each special id, in order.
SPECIAL_NAMES = (
    *_FIRST_NAMES,
    *(f"<extra_id_{number}>" for number in range(len(_FIRST_NAMES), NUM_SPECIAL_IDS)),
)
_NAMED = ("pad_token", "bos_token", "eos_token", "unk_token", "sep_token")


class EvaByteTokenizer(PreTrainedTokenizer):
    """A byte is the token `chr(byte)` and has the id `byte + 64`; the begin-of-text id comes first.

    It needs no file. It decodes bytes that are not UTF-8 as U+FFFD.
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 - as in the base class
    prefix_tokens = (BOS_ID,)

    def __init__(self, **kwargs: Any) -> None:
        self._added_tokens_decoder = {
            number: AddedToken(name, special=True, normalized=False)
            for number, name in enumerate(SPECIAL_NAMES)
        }
        defaults: dict[str, Any] = {
            **dict(zip(_NAMED, SPECIAL_NAMES, strict=False)),
            "extra_special_tokens": list(SPECIAL_NAMES[len(_NAMED) :]),
            "split_special_tokens": True,
            "special_tokens_pattern": "prefix_suffix",
        }
        super().__init__(**{**defaults, **kwargs})

    @property
    def vocab_size(self) -> int:
        """The number of ids, special ones included."""
        return VOCABULARY_SIZE

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each token."""
        ids = {chr(byte): byte + NUM_SPECIAL_IDS for byte in range(256)}
        return {**self.added_tokens_encoder, **ids}

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write nothing: the vocabulary is in the code."""
        return ()

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`; special tokens are in it by their names."""
        names = self._added_tokens_encoder
        found = (token.encode() if token in names else bytes([ord(token)]) for token in tokens)
        return b"".join(found).decode(errors="replace")

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Put the begin-of-text id before a text, or before two texts that follow each other."""
        return [*self.prefix_tokens, *token_ids_0, *(token_ids_1 or ())]

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [chr(byte) for byte in text.encode()]

    def _convert_token_to_id(self, token: str) -> int | None:
        if len(token) != 1 or ord(token) > 255:
            return self.unk_token_id
        return ord(token) + NUM_SPECIAL_IDS

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index - NUM_SPECIAL_IDS)
