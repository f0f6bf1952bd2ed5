"""The canary: a fixed text whose score tells, at every start, whether the model is still itself.

What the score must be stands in `canary.json` beside the weights, written with them; a checkpoint
without that file is compared with its own first start here, which `cache_dir` keeps.
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

# How far the score may move, in nats per byte: several times what it moved between the instruction
# sets of a CPU (docs/numerics.md). A page of 4 KiB of zeros in a matrix of the demo model's first
# layers moves it by 7e-4 to 4e-2, a matrix of zeros by 0.4 and more.
FLOAT32_TOLERANCE = 1e-4
# A number that is rounded to 8 bits falls to the other side where its last bit differs.
INT8_TOLERANCE = 2e-3
BFLOAT16_TOLERANCE = 5e-3
# In bfloat16 many more do: sums in another order moved the demo model by up to 1e-2.
BFLOAT16_INT8_TOLERANCE = 1.5e-2

# Raised when the text changes, since no earlier score holds then.
RECORD_LAYOUT = "1"


@dataclass(frozen=True, slots=True)
class Canary:
    """The score that the text must have, and by how much it may miss it; in nats."""

    expected_nats: float
    tolerance_nats: float

    def check(self, found_nats: float) -> None:
        """Compare. Raises: ModelDrifted."""
        if abs(found_nats - self.expected_nats) <= self.tolerance_nats:
            return
        raise ModelDrifted(
            f"the model's score of the canary text is {found_nats:.4f} nats, expected are "
            f"{self.expected_nats:.4f} within {self.tolerance_nats:.4f}; "
            "copy the checkpoint again, empty the cache folder, and test the memory of this machine"
        )


def score_canary(scorer: Scorer) -> float:
    """Return the log-likelihood of the text, as much of it as the model reads, in nats."""
    [result] = scorer.score([ScoreRequest(text=TEXT[: scorer.info.max_text_bytes])])
    return float(result["log_likelihood_nats"])


def check_canary(scorer: Scorer, cache_dir: Path) -> None:
    """Compare the score of the text with that of `canary.json`, or with that of the first start.

    The first start of a checkpoint without `canary.json` leaves its score in `cache_dir`, for the
    same weights, mode, device and libraries; where that cannot be written, nothing is compared.

    Raises:
        ModelDrifted: the model does not score as it did, or its weights are other ones.
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
    """How far the score may move in the mode of `scorer`."""
    is_int8 = scorer.info.quantization == "int8"
    if scorer.info.dtype == "float32":
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
    """The score that the checkpoint names for this mode, if any."""
    path = scorer.folder / CANARY_FILE
    try:
        canary = json.loads(path.read_bytes())
        weights, text_sha256 = canary["weights"], canary["text_sha256"]
        score = (
            canary["log_likelihood_nats"].get(scorer.info.dtype, {}).get(scorer.info.quantization)
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointInvalid(f"{path}: not readable; copy it again, or delete it") from error
    if weights != scorer.info.revision:
        raise ModelDrifted(
            f"{path}: made for weights {weights}, but those beside it are {scorer.info.revision}: "
            "damaged or replaced; copy the checkpoint again, or delete this file if they are meant"
        )
    if text_sha256 != hashlib.sha256(TEXT).hexdigest():
        raise CheckpointInvalid(f"{path}: made for another canary text; delete it")
    return None if score is None else float(score)


def _identity_digest(scorer: Scorer) -> str:
    """Stands for all that decides the score but the rounding of this machine's instructions."""
    info = scorer.info
    libraries = ["torch", "transformers"] + ["bitsandbytes"] * (info.quantization != "none")
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
    """The score that an earlier start left; None where it left none that is whole."""
    try:
        return float(json.loads(path.read_bytes())["log_likelihood_nats"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the canary's score in %s is damaged and taken anew: %s", path, error)
        return None


def _record(nats: float, path: Path) -> None:
    """Keep the score for later starts: all of it or, where this cannot be, nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One per process, so that of two first starts neither writes into the other's.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("w") as file:
            json.dump({"log_likelihood_nats": nats}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        flush_to_disk(path.parent)
    except OSError as error:
        log.warning("the canary's score was not kept in %s: %s", path.parent, error)
