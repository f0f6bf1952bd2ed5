"""docs/gpu.md shows the figures that bench/roofline.py computes."""

import pytest

from bench import roofline
from contract.settings import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "gpu.md").read_text()


@pytest.mark.parametrize("table", [roofline.table(), roofline.kernels_table()], ids=["all", "ours"])
def test_table_is_what_the_script_computes(table):
    assert table in DOCUMENT


@pytest.mark.parametrize(
    "figure",
    [
        f"{roofline.FUSED_BYTES / 1e6:.1f} MB move per byte",
        f"{roofline.TORCH_BYTES / 1e6:.1f} MB without",
        f"about {roofline.WORKING_BYTES / 1e3:.0f} kB per byte",
    ],
)
def test_figure_in_the_text_is_what_the_script_computes(figure):
    assert figure in DOCUMENT


@pytest.mark.parametrize("gpu", roofline.GPUS, ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("mode", roofline.MODES, ids=lambda mode: mode.name)
def test_speed_grows_with_the_budget_towards_the_ceiling(gpu, mode):
    speeds = [roofline.speed(gpu, mode, 2**power) for power in range(25)]
    assert speeds == sorted(speeds)
    assert speeds[-1] == pytest.approx(roofline.ceiling(gpu, mode), rel=1e-3)


def test_default_batch_reaches_the_ceiling_in_every_mode():
    budgets = [roofline.sufficient_budget(g, m) for g in roofline.GPUS for m in roofline.MODES]
    assert max(budgets) <= 16_384
