"""Computes the fingerprint of a model: two models with one fingerprint give the same scores.

"The same" means except for rounding. So device, kernels, the length of a pass and
`EVASCORE_REPRODUCIBLE` are left out: they change the order of sums. So are the versions of the
libraries, which the canary text checks at every start.
"""

import hashlib
import json

from model.evabyte.configuration import SCORING_KEYS, EvaByteConfig

# Raise it in the release that changes scores beyond rounding, for example by a corrected formula.
SCORES_VERSION = 1
_DIGITS = 12


def fingerprint_of(revision: str, config: EvaByteConfig, *, dtype: str, quantization: str) -> str:
    """Return the fingerprint: 12 hexadecimal digits of a SHA-256, equal on every machine.

    Args:
        revision: the digest of the weights.
        dtype: the type of the weights, float32 or bfloat16, never auto.
        quantization: none, int8, nf4 or fp8.
    """
    keys = {key: getattr(config, key) for key in SCORING_KEYS}
    identity = {
        "scores": SCORES_VERSION,
        "weights": revision,
        # Published configurations hold this number as an integer or as a float.
        "config": {**keys, "rope_theta": float(config.rope_theta)},
        "dtype": dtype,
        "quantization": quantization,
    }
    whole = json.dumps(identity, sort_keys=True).encode()
    return hashlib.sha256(whole).hexdigest()[:_DIGITS]
