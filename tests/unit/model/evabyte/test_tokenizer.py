"""The tokenizer: ids as the service reads them, special ids by name only where asked for."""

import json

import pytest
from transformers import AutoTokenizer

from app.requests import byte_tokens
from contract.grammar.vocabulary import NUM_SPECIAL_IDS, VOCABULARY_SIZE, encode
from model import EvaByteTokenizer
from model.evabyte.tokenizer import SPECIAL_NAMES

TEXTS = ["", "a", "Grüße, 世界 🌍", "<bos>", "a <pad><|eot_id|> b", " \t\r\n ", "\x00\x7f"]


@pytest.fixture(scope="module")
def tokenizer() -> EvaByteTokenizer:
    return EvaByteTokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_that_the_scorer_reads(tokenizer, text):
    assert tokenizer(text).input_ids == encode(text.encode())
    assert tokenizer.encode(text, add_special_tokens=False) == encode(text.encode())[1:]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_become_the_text_again(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.decode(ids) == f"<bos>{text}"


def test_names_become_special_ids_on_request(tokenizer):
    for number, name in enumerate(SPECIAL_NAMES):
        ids = tokenizer(f"a{name}b", split_special_tokens=False).input_ids
        assert ids == [1, 161, number, 162]
        assert tokenizer.decode(ids) == f"<bos>a{name}b"
        assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"


def test_special_ids_have_the_published_names(tokenizer):
    named = [tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token]
    assert named == ["<pad>", "<bos>", "<eos>", "<unk>"]
    assert [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id] == [0, 1, 2]
    assert tokenizer.convert_tokens_to_ids(["<sep>", "<|eot_id|>", "<extra_id_63>"]) == [4, 11, 63]
    assert tokenizer.convert_tokens_to_ids("no token") == tokenizer.unk_token_id == 3


def test_service_gives_the_same_names_to_bos_and_eos(tokenizer):
    assert (tokenizer.bos_token, tokenizer.eos_token) == (byte_tokens.BOS, byte_tokens.EOS)


def test_every_id_has_a_token_of_its_own(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(range(VOCABULARY_SIZE))
    assert tokenizer.convert_tokens_to_ids(tokens) == list(range(VOCABULARY_SIZE))
    assert tokenizer.get_vocab() == {token: number for number, token in enumerate(tokens)}
    assert len(tokenizer) == tokenizer.vocab_size == VOCABULARY_SIZE


def test_bytes_that_are_not_utf8_become_replacement_characters(tokenizer):
    ids = [byte + NUM_SPECIAL_IDS for byte in b"a\xff\xe4\xb8b"]
    assert tokenizer.decode(ids) == b"a\xff\xe4\xb8b".decode(errors="replace")


def test_rows_are_padded_on_either_side_and_cut(tokenizer):
    rows = tokenizer(["abc", "d"], padding=True)
    assert rows.input_ids == [[1, 161, 162, 163], [1, 164, 0, 0]]
    assert rows.attention_mask == [[1, 1, 1, 1], [1, 1, 0, 0]]
    rows = tokenizer(["abc", "d"], padding=True, padding_side="left")
    assert rows.input_ids[1] == [0, 0, 1, 164]
    assert tokenizer("abc", truncation=True, max_length=3).input_ids == [1, 161, 162]
    assert tokenizer("ab", "c").input_ids == [1, 161, 162, 163]


def test_auto_class_needs_no_file_of_a_tokenizer(tiny_checkpoint):
    assert isinstance(AutoTokenizer.from_pretrained(tiny_checkpoint), EvaByteTokenizer)


def test_saved_tokenizer_is_the_same(tokenizer, tiny_config, tmp_path):
    tiny_config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, EvaByteTokenizer)
    assert [loaded(text).input_ids for text in TEXTS] == [
        tokenizer(text).input_ids for text in TEXTS
    ]
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_published_folder_needs_no_remote_code(tiny_config, tmp_path):
    """The published tokenizer_config.json names code of its own and the old key of other names."""
    tiny_config.save_pretrained(tmp_path)
    published = {
        "added_tokens_decoder": {
            str(number): {
                **{"content": name, "special": True, "normalized": False, "lstrip": False},
                **{"rstrip": False, "single_word": False},
            }
            for number, name in enumerate(SPECIAL_NAMES)
        },
        "additional_special_tokens": list(SPECIAL_NAMES[5:]),
        "auto_map": {"AutoTokenizer": ["tokenization_evabyte.EvaByteTokenizer", None]},
        "bos_token": "<bos>",
        "clean_up_tokenization_spaces": False,
        "extra_ids": 59,
        "model_max_length": 1000000000000000019884624838656,
        "tokenizer_class": "EvaByteTokenizer",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(published))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, EvaByteTokenizer)
    assert loaded("a <bos>").input_ids == encode(b"a <bos>")
    assert loaded.decode([1, 161, 12, 63], skip_special_tokens=True) == "a"
