"""All kernels together give the scores that the authors' code gave."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from contract.grammar.vocabulary import encode
from model import EvaByteForCausalLM
from model.scoring.log_likelihood import score_bytes

ORACLE = Path(__file__).parents[4] / "oracle"
# Bytes of a recorded text: none, one, and as many as cross a window of 64. A score depends on what
# comes before alone, so that the beginning of a text has the beginning of its scores.
CASES = {"empty": 0, "one_ff": 1, "english_127": 68}


@pytest.fixture(scope="module")
def causal_lm(device: torch.device) -> EvaByteForCausalLM:
    model = EvaByteForCausalLM.from_pretrained(ORACLE / "small").to(device)
    model.model.backend = "triton"
    return model


@torch.inference_mode()
def test_packed_texts_have_the_scores_of_the_authors_code(causal_lm, device):
    recorded = json.loads((ORACLE / "golden.json").read_bytes())["cases"]
    texts = {case["name"]: bytes.fromhex(case["hex"]) for case in recorded if "hex" in case}
    golden = load_file(ORACLE / "golden.safetensors")
    rows = [encode(texts[name][:num_bytes]) for name, num_bytes in CASES.items()]

    input_ids = torch.tensor([token for ids in rows for token in ids[:-1]], device=device)
    targets = torch.tensor([token for ids in rows for token in ids[1:]], device=device)
    scores = score_bytes(
        causal_lm.model(input_ids, causal_lm.lay_out(list(CASES.values()))),
        causal_lm.next_id_weight,
        targets,
        with_moments=False,
        top_k=0,
        backend=causal_lm.model.backend,
    )

    expected = [golden[f"{name}/logp"][:num_bytes] for name, num_bytes in CASES.items()]
    np.testing.assert_allclose(scores.log_prob, np.concatenate(expected), rtol=0, atol=1e-4)
