"""docs/gpu.md shows the figures that bench/roofline.py computes."""

import pytest

from bench import roofline
from contract.settings import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "gpu.md").read_text()
L4 = next(gpu for gpu in roofline.GPUS if gpu.name.startswith("L4"))
NONE = roofline.MODES[0]
BASE_SHARE = roofline.L4_BASE_MHZ / roofline.L4_BOOST_MHZ


@pytest.mark.parametrize(
    "table",
    [
        roofline.table(),
        roofline.kernels_table(),
        roofline.joined_table(),
        roofline.targets_table(),
    ],
    ids=["all", "ours", "joined", "targets"],
)
def test_table_is_what_the_script_computes(table):
    assert table in DOCUMENT


@pytest.mark.parametrize(
    "figure",
    [
        f"{roofline.FUSED_BYTES / 1e6:.1f} MB move per byte",
        f"{roofline.TORCH_BYTES / 1e6:.1f} MB without",
        f"about {roofline.WORKING_BYTES / 1e3:.0f} kB per byte",
        f"{BASE_SHARE * L4.peak_bf16 / 1e12:.0f} at its base clock of {roofline.L4_BASE_MHZ} MHz",
        f"{BASE_SHARE / roofline.products_s_per_byte(L4, NONE) / 1e3:.1f} kB/s of text",
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


def test_targets_are_below_the_ceilings_of_joined_kernels():
    assert roofline.TARGETS.keys() == {gpu.name for gpu in roofline.GPUS if gpu.has_triton}
    for gpu in roofline.GPUS:
        for mode, joined in ((0, roofline.JOINED_BYTES), (1, roofline.JOINED_INT8_BYTES)):
            if gpu.name in roofline.TARGETS:
                products_s = roofline.products_s_per_byte(gpu, roofline.MODES[mode])
                ceiling = 1 / (products_s + joined / gpu.bandwidth)
                assert roofline.TARGETS[gpu.name][mode][1] * 1e3 < ceiling
