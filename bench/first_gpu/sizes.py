"""Holds the sizes of a run: those of EvaByte 6.5B, and tiny ones for a rehearsal on a CPU."""

from dataclasses import dataclass, field
from typing import Any

from bench.roofline import GPUS, HIDDEN, INTERMEDIATE, LAYERS, Gpu


@dataclass(frozen=True)
class Sizes:
    """The sizes of the model, of its passes and of the loads; the defaults are those of a GPU."""

    config: dict[str, Any] = field(default_factory=dict)  # empty: EvaByte 6.5B
    hidden: int = HIDDEN
    intermediate: int = INTERMEDIATE
    heads: int = 32
    window: int = 2048
    layers: int = LAYERS
    dtype: str = "bfloat16"
    rows: int = 8192  # of a single product
    square: int = 8192  # rows and columns of the product that finds the ceiling
    copy_bytes: int = 4 << 30
    budgets: tuple[int, ...] = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)  # bytes of a pass
    torch_budgets: tuple[int, ...] = (2048, 8192)
    pass_bytes: int = 8192
    text_bytes: int = 200
    mixed_bytes: tuple[int, int] = (100, 400)  # the shortest and longest of mixed texts
    num_texts: int = 400
    num_alone: int = 40  # texts that are scored one at a time
    padded_texts: int = 32  # texts of a padded batch
    num_posts: int = 500
    num_bulk: int = 20_000
    num_bulk_6b: int = 2000
    checkpoint_bytes: float = 13e9
    sustained_s: float = 2.5
    is_tiny: bool = False

    @property
    def linear_weights(self) -> int:
        """The number of weights of the linear layers, without the heads."""
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.intermediate)


REAL = Sizes()
TINY = Sizes(
    config={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_pred_heads": 2,
        "window_size": 64,
        "chunk_size": 16,
        "max_position_embeddings": 1024,
        "initializer_range": 0.1,
    },
    hidden=64,
    intermediate=128,
    heads=2,
    window=64,
    layers=2,
    dtype="float32",
    rows=64,
    square=64,
    copy_bytes=1 << 20,
    budgets=(64, 256, 512),
    torch_budgets=(64, 256),
    pass_bytes=256,
    text_bytes=40,
    mixed_bytes=(10, 40),
    num_texts=12,
    num_alone=4,
    padded_texts=4,
    num_posts=20,
    num_bulk=50,
    num_bulk_6b=20,
    checkpoint_bytes=1e6,
    sustained_s=0.1,
    is_tiny=True,
)


def data_sheet(device_name: str) -> Gpu | None:
    """Return the dense peaks of the GPU that CUDA calls `device_name`; None of an unknown one."""
    words = device_name.replace("-", " ").split()  # an L40 is not an L4
    # An H200 is an H100 with other memory.
    words = ["H100" if word == "H200" else word for word in words]
    return next((gpu for gpu in GPUS if gpu.name.split()[0] in words), None)
