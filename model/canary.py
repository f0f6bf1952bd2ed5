"""Checks the model at every start: the score of a fixed text, the canary, must not change.

The expected score is in `canary.json` beside the weights. For a checkpoint without that file, the
score of the first start on this machine counts; `cache_dir` keeps it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from model.errors import CheckpointInvalid, ModelDrifted
from model.scorer import Scorer
from model.scoring.request import ScoreRequest
from model.weights.checkpoint import CANARY_FILE, CONFIG_FILE
from model.weights.quantized_cache import flush_to_disk

log = logging.getLogger(__name__)

# Scripts, digits, code and a repetition, over several windows of the demo model.
TEXT = (
    "The canary sang in the mine for 1,234 days; on the 1,235th it was silent. "
    "Nobody asked why until the lamps burned blue.\n"
    "Am Anfang schuf Gott Himmel und Erde. Und die Erde war wüst und leer.\n"
    "Le chat est assis près de la fenêtre. El perro duerme en la casa.\n"
    "В начале сотворил Бог небо и землю.\n"
    "起初,神创造天地。\n"
    'for key, value in sorted(items.items()):\n    print(f"{key}={value!r}")\n'
    "https://example.org/a?b=c&d=%20#e <p>f &amp; g</p>\n"
    "In the beginning God created the heaven and the earth. "
    "In the beginning God created the heaven and the earth.\n"
).encode()

# The score may differ by this much, in nats per byte. It is several times the difference between
# the instruction sets of a CPU (docs/numerics.md). Damage moves the score further: 4 KiB of zeros
# in a matrix of the demo model's first layers by 7e-4 to 4e-2, a matrix of zeros by 0.4 or more.
FLOAT32_TOLERANCE = 1e-4
# Rounding to 8 bits turns a difference in the last bit into a whole step.
INT8_TOLERANCE = 2e-3
BFLOAT16_TOLERANCE = 5e-3
# In bfloat16 that happens more often: another order of sums moved the demo model by up to 1e-2.
BFLOAT16_INT8_TOLERANCE = 1.5e-2
# A step of e4m3 is up to an eighth of the number. Sums in another order moved the demo model by up
# to 4e-3, and sums as coarse as those of a GPU's tensor cores by up to 1e-2, in either type.
FP8_TOLERANCE = 2e-2

# Raise it when the text changes: scores that were kept are then of another text.
RECORD_LAYOUT = "1"


@dataclass(frozen=True, slots=True)
class Canary:
    """The expected score of the text and the largest allowed difference, in nats."""

    expected_nats: float
    tolerance_nats: float

    def check(self, found_nats: float) -> None:
        """Compare with the score found. Raises: ModelDrifted."""
        if abs(found_nats - self.expected_nats) <= self.tolerance_nats:
            return
        raise ModelDrifted(
            f"the model scores the canary text with {found_nats:.4f} nats; the expected score is "
            f"{self.expected_nats:.4f}, tolerance {self.tolerance_nats:.4f}. Copy the checkpoint "
            "again, empty the cache folder, and test the memory of this machine"
        )


def score_canary(scorer: Scorer) -> float:
    """Return the log-likelihood of the text in nats, cut to what the model reads at once."""
    [result] = scorer.score([ScoreRequest(text=TEXT[: scorer.info.max_text_bytes])])
    return float(result["log_likelihood_nats"])


def check_canary(scorer: Scorer, cache_dir: Path) -> None:
    """Compare the score of the text with `canary.json`, or with the score of the first start.

    The first start of a checkpoint without `canary.json` keeps its score in `cache_dir`, for the
    same weights, mode, device and libraries. Where it cannot be kept, nothing is compared.

    Raises:
        ModelDrifted: the model does not score as it did, or its weights were replaced.
        ScoringFailed: the score is not finite.
        CheckpointInvalid: `canary.json` is damaged, or of another text.
    """
    found = score_canary(scorer)
    expected = _published(scorer)
    if expected is None:
        record = cache_dir / "canary" / f"{_identity_digest(scorer)}.json"
        expected = _recorded(record)
        if expected is None:
            _record(found, record)
            return
    Canary(expected, tolerance_nats(scorer)).check(found)


def tolerance_nats(scorer: Scorer) -> float:
    """Return how far the score may move in the mode of `scorer`, in nats."""
    is_int8 = scorer.info.quantization == "int8"
    if scorer.info.quantization == "fp8":
        per_byte = FP8_TOLERANCE
    elif scorer.info.dtype == "float32":
        per_byte = INT8_TOLERANCE if is_int8 else FLOAT32_TOLERANCE
    else:
        per_byte = BFLOAT16_INT8_TOLERANCE if is_int8 else BFLOAT16_TOLERANCE
    return per_byte * len(TEXT[: scorer.info.max_text_bytes])


def write_canary(folder: Path, scores: Mapping[str, Mapping[str, float]], revision: str) -> None:
    """Write `canary.json` beside the weights of `revision`; `scores` in nats by dtype and mode."""
    canary = {
        "text_sha256": hashlib.sha256(TEXT).hexdigest(),
        "weights": revision,
        "log_likelihood_nats": scores,
    }
    (folder / CANARY_FILE).write_text(json.dumps(canary, indent=2) + "\n")


def _published(scorer: Scorer) -> float | None:
    """Return the score in `canary.json` for this mode; None where there is none."""
    path = scorer.folder / CANARY_FILE
    try:
        canary = json.loads(path.read_bytes())
        weights, text_sha256 = canary["weights"], canary["text_sha256"]
        score = (
            canary["log_likelihood_nats"].get(scorer.info.dtype, {}).get(scorer.info.quantization)
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointInvalid(f"{path}: cannot be read; copy it again, or delete it") from error
    if weights != scorer.info.revision:
        raise ModelDrifted(
            f"{path}: made for weights {weights}, but the weights beside it are "
            f"{scorer.info.revision}; copy the checkpoint again, or delete this file if you "
            "replaced the weights on purpose"
        )
    if text_sha256 != hashlib.sha256(TEXT).hexdigest():
        raise CheckpointInvalid(f"{path}: made for the canary text of another release; delete it")
    return None if score is None else float(score)


def _identity_digest(scorer: Scorer) -> str:
    """Return a digest of everything that decides the score, except this machine's rounding."""
    info = scorer.info
    libraries = ["torch", "transformers"] + ["bitsandbytes"] * (
        info.quantization in ("int8", "nf4")
    )
    identity = {
        "layout": RECORD_LAYOUT,
        "weights": info.revision,
        "config": hashlib.sha256((scorer.folder / CONFIG_FILE).read_bytes()).hexdigest(),
        "quantization": info.quantization,
        "dtype": info.dtype,
        "backend": info.backend,
        "device": info.device.partition(":")[0],
        **{name: version(name) for name in libraries},
    }
    whole = json.dumps(identity, sort_keys=True).encode()
    return hashlib.sha256(whole).hexdigest()[:32]


def _recorded(path: Path) -> float | None:
    """Return the score that an earlier start kept; None where there is none or it is damaged."""
    try:
        return float(json.loads(path.read_bytes())["log_likelihood_nats"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the canary score in %s is damaged and is measured again: %s", path, error)
        return None


def _record(nats: float, path: Path) -> None:
    """Keep the score for later starts; a failed write leaves no file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One per process: two first starts at once must not write into one file.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("w") as file:
            json.dump({"log_likelihood_nats": nats}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        flush_to_disk(path.parent)
    except OSError as error:
        log.warning("the canary score was not kept in %s: %s", path.parent, error)
