"""The ids that the web tier speaks of are those of the model."""

from contract import byte_ids
from model import EvaByteConfig, vocabulary


def test_both_tiers_number_bytes_and_special_ids_alike():
    assert byte_ids.VOCABULARY_SIZE == vocabulary.VOCABULARY_SIZE
    assert byte_ids.NUM_SPECIAL_IDS == vocabulary.NUM_SPECIAL_IDS
    assert byte_ids.BOS_ID == vocabulary.BOS_ID == EvaByteConfig().bos_token_id
    assert EvaByteConfig().eos_token_id == byte_ids.EOS_ID
