"""All kernels together give the scores that the authors' code gave."""

import json

import numpy as np
import pytest
import torch

from contract.settings import REPOSITORY
from model import EvaByteForCausalLM
from model.log_likelihood import score_bytes
from model.vocabulary import encode

ORACLE = REPOSITORY / "tests" / "oracle"
# No byte, one byte, and two windows of 64 that are full and one that is just begun.
CASES = ("empty", "one_ff", "english_129")


@pytest.fixture(scope="module")
def causal_lm(device: torch.device) -> EvaByteForCausalLM:
    model = EvaByteForCausalLM.from_pretrained(ORACLE / "small").to(device)
    model.model.backend = "triton"
    return model


@torch.inference_mode()
def test_packed_texts_have_the_scores_of_the_authors_code(causal_lm, device):
    cases = {
        case["name"]: case for case in json.loads((ORACLE / "golden.json").read_bytes())["cases"]
    }
    texts = [encode(bytes.fromhex(cases[name]["hex"])) for name in CASES]
    lengths = [len(ids) - 1 for ids in texts]  # no byte follows the last one

    input_ids = torch.tensor([token for ids in texts for token in ids[:-1]], device=device)
    targets = torch.tensor([token for ids in texts for token in ids[1:]], device=device)
    hidden = causal_lm.model(input_ids, causal_lm.lay_out(lengths))
    scores = score_bytes(
        hidden,
        causal_lm.next_id_weight,
        targets,
        with_moments=False,
        top_k=0,
        backend=causal_lm.model.backend,
    )

    ends = np.cumsum(lengths)
    for name, end, length in zip(CASES, ends, lengths, strict=True):
        nll_nats = -scores.log_prob[end - length : end].astype(np.float64).sum()
        assert nll_nats == pytest.approx(cases[name]["nll_nats"], rel=1e-6, abs=1e-4), name
