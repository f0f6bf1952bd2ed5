"""Sets learning rates, batch size and sequence length from the time trained so far.

The clock counts seconds of training, not steps, so that a run ends when it should on any machine.
"""

from dataclasses import dataclass

# Shares of the training time. The long decay is what a short run gains most from.
WARM_UP = 0.015
DECAY = 0.5


@dataclass(frozen=True)
class Phase:
    """From `start`, a fraction of the training time: the batches, and how much of the network.

    A step takes `batch_size` sequences of `length` ids through the first `num_layers` layers. The
    layers above start as the identity, so that leaving them out changes no result, only the time.
    """

    start: float
    batch_size: int
    length: int
    num_layers: int


PHASES = (
    # A step through two layers takes 0.4 of the time of one through six. In runs of 90 s, batches
    # of 4 led to fewer bits per byte than larger ones.
    Phase(start=0.0, batch_size=4, length=1024, num_layers=2),
    Phase(start=0.4, batch_size=4, length=1024, num_layers=6),
    # Less of the time goes to the optimizer, and at a low rate steps may be fewer.
    Phase(start=0.75, batch_size=8, length=1024, num_layers=6),
)


def learning_rate_factor(progress: float) -> float:
    """Return the factor on the peak rates at `progress` (0 to 1): warm-up, constant, linear decay.

    Source: the WSD schedule of MiniCPM, arXiv:2404.06395, with a decay to 0.
    """
    return max(0.0, min(1.0, progress / WARM_UP + 1e-3, (1 - progress) / DECAY))


def phase_at(progress: float, phases: tuple[Phase, ...] = PHASES) -> Phase:
    """Return the phase that holds at `progress` (0 to 1)."""
    return max((x for x in phases if x.start <= progress), key=lambda x: x.start)
