"""Makes packed passes of random bytes that a model can run again and again."""

from collections.abc import Sequence

import torch

from bench.first_gpu import project
from bench.first_gpu.project import ROW_STEP, ByteScores
from model import EvaByteForCausalLM

FIRST_ID, NUM_IDS = 64, 256


class Pass:
    """One packed pass over random bytes, on the model's device."""

    def __init__(self, model: EvaByteForCausalLM, lengths: Sequence[int], *, seed: int = 0) -> None:
        """Fill the pass up to a whole step of rows, as the scorer does."""
        self.num_bytes = sum(lengths)
        num_added = -self.num_bytes % ROW_STEP
        generator = torch.Generator().manual_seed(seed)
        size = (self.num_bytes + num_added,)
        ids = torch.randint(FIRST_ID, FIRST_ID + NUM_IDS, size, generator=generator)
        self.ids = ids.to(model.device)
        self.targets = self.ids.roll(-1)
        self.layout = model.lay_out([*lengths[:-1], lengths[-1] + num_added])
        self._model = model

    def run(self) -> ByteScores:
        """Score all bytes."""
        return project.score_pass(self._model, self.ids, self.targets, self.layout)
