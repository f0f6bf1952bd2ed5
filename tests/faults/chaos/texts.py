"""Makes texts that differ between clients, and scores them with the models, without the service."""

import random
from collections.abc import Iterable
from pathlib import Path

from model import Scorer, ScoreRequest
from tests.faults.conftest import MARKER
from tests.faults.storm import SPEECHES, TOLERANCE_NATS, TOLERANCE_RELATIVE

TEXTS_PER_CLIENT = 16
MAX_SHORT_BYTES, MAX_LONG_BYTES = 200, 2000
_TOGETHER = 16


def texts_of(client: str, seed: int) -> list[str]:
    """Return the texts of one client; one in eight is long. No other client has any of them."""
    generator = random.Random(f"{seed} {client}")
    texts = []
    for number in range(TEXTS_PER_CLIENT):
        most = MAX_LONG_BYTES if number % 8 == 7 else MAX_SHORT_BYTES
        speech = generator.choice(SPEECHES)
        length = generator.randrange(1, most)
        texts.append(f"{MARKER} {client} {number} " + (speech * length)[: length // 3])
    return texts


class Offline:
    """The scores of all texts by each model."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Score `texts` by the models that `add` loads."""
        self._texts = sorted(set(texts))
        self._nats: dict[str, dict[str, float]] = {}

    def add(self, checkpoint: Path) -> str:
        """Load a model and score all texts; return its fingerprint."""
        scorer = Scorer.load(str(checkpoint))
        found: dict[str, float] = {}
        for at in range(0, len(self._texts), _TOGETHER):
            texts = self._texts[at : at + _TOGETHER]
            results = scorer.score([ScoreRequest(text=text.encode()) for text in texts])
            for text, result in zip(texts, results, strict=True):
                assert isinstance(result, dict)
                found[text] = result["log_likelihood_nats"]
        self._nats[scorer.info.fingerprint] = found
        return scorer.info.fingerprint

    @property
    def fingerprints(self) -> list[str]:
        """Of the models that were added."""
        return list(self._nats)

    def nats(self, fingerprint: str, text: str) -> float:
        """The score of a text by a model."""
        return self._nats[fingerprint][text]

    def difference(self, fingerprint: str, text: str, nats: float) -> float:
        """The difference from the score without the service, in units of the tolerance."""
        expected = self._nats[fingerprint][text]
        return abs(nats - expected) / (TOLERANCE_NATS + TOLERANCE_RELATIVE * abs(expected))
