"""Passes are as large as memory allows, and no larger."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from model import EvaByteConfig, EvaByteForCausalLM, Scorer, ScoreRequest
from model.evabyte.kv_rows import KeysValues
from model.machine.pass_memory import (
    MIN_PASS_BYTES,
    Peak,
    carried_bytes_of,
    pass_bytes_that_fit,
)
from model.scoring.forward import Reader
from tests.conftest import HANG_S

REPOSITORY = Path(__file__).parents[4]
# 10 kB for each byte of text and 300 kB besides.
SMALL, LARGE = Peak(256, 300_000 + 2_560_000), Peak(1024, 300_000 + 10_240_000)


def fitting(free_bytes: int, *, carried_bytes: int = 0, wanted_bytes: int = 8192) -> int:
    return pass_bytes_that_fit(
        SMALL,
        LARGE,
        free_bytes=free_bytes,
        carried_bytes=carried_bytes,
        wanted_bytes=wanted_bytes,
    )


def test_pass_is_as_long_as_wanted_where_memory_abounds():
    assert fitting(10**9) == 8192


def test_pass_takes_four_fifths_of_what_is_free():
    num_bytes = fitting(50_000_000)

    assert num_bytes % MIN_PASS_BYTES == 0
    assert 300_000 + 10_000 * num_bytes <= 40_000_000
    assert 300_000 + 10_000 * (num_bytes + MIN_PASS_BYTES) > 40_000_000


def test_what_passes_carry_is_left_free():
    assert fitting(50_000_000, carried_bytes=20_000_000) < fitting(50_000_000)


@pytest.mark.parametrize(("wanted", "expected"), [(8192, MIN_PASS_BYTES), (100, 100)])
def test_pass_is_never_without_bytes(wanted, expected):
    assert fitting(0, wanted_bytes=wanted) == expected


def test_pass_that_took_no_more_for_more_bytes_is_as_long_as_wanted():
    flat = (Peak(256, 1000), Peak(1024, 1000))

    found = pass_bytes_that_fit(*flat, free_bytes=10**6, carried_bytes=0, wanted_bytes=8192)

    assert found == 8192


@pytest.mark.parametrize("num_bytes", [1, 15, 16, 300, 301])
def test_passes_carry_no_more_than_is_reckoned(num_bytes, tiny_model):
    contexts = Reader(tiny_model, 32).read_contexts([bytes(num_bytes)])

    carried = sum(rows.numel() * 4 for layer in contexts.carried for rows in KeysValues(*layer))
    assert 2 * carried <= carried_bytes_of(tiny_model.config, num_bytes, bytes_per_value=4)


LIMITED = """
    import resource, sys
    from pathlib import Path
    import torch
    from model import Scorer, ScoreRequest

    torch.set_num_threads(1)
    scorer = Scorer.load(sys.argv[1], pass_bytes=int(sys.argv[3]))
    request = ScoreRequest(text=bytes(number * 7 % 256 for number in range(32_767)))
    scorer.score([ScoreRequest(text=request.text[:600])])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    [result] = scorer.score([request])
    print(result["log_likelihood_nats"], scorer.pass_bytes)
"""


@pytest.fixture(scope="module")
def wide_checkpoint(tmp_path_factory) -> Path:
    """A model whose passes take tens of megabytes, beyond what the allocator has at hand."""
    config = EvaByteConfig(
        hidden_size=64,
        intermediate_size=1024,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_pred_heads=1,
        window_size=256,
        chunk_size=16,
        max_position_embeddings=32_768,
    )
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    EvaByteForCausalLM(config).save_pretrained(folder)
    return folder


def score_with(checkpoint: Path, *, spare_bytes: int, pass_bytes: int) -> list[str]:
    """The output of a process that may take no more than `spare_bytes` beyond a short pass."""
    command = (sys.executable, "-c", textwrap.dedent(LIMITED), str(checkpoint))
    done = subprocess.run(
        (*command, str(spare_bytes), str(pass_bytes)),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_text_passes_where_memory_is_too_short_for_a_pass_of_its_length(wide_checkpoint):
    text = bytes(number * 7 % 256 for number in range(32_767))
    scorer = Scorer.load(str(wide_checkpoint), pass_bytes=2048)
    [expected] = scorer.score([ScoreRequest(text=text)])

    nats, pass_bytes = score_with(wide_checkpoint, spare_bytes=200 << 20, pass_bytes=32_768)

    assert MIN_PASS_BYTES <= int(pass_bytes) < 32_768
    assert float(nats) == pytest.approx(expected["log_likelihood_nats"], rel=1e-5)


def test_passes_stay_as_long_as_they_are_where_memory_suffices(wide_checkpoint):
    _, pass_bytes = score_with(wide_checkpoint, spare_bytes=16 << 30, pass_bytes=32_768)

    assert int(pass_bytes) == 32_768


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_warm_up_shortens_passes_to_the_memory_of_the_device(wide_checkpoint):
    scorer = Scorer.load(str(wide_checkpoint), device="cuda", pass_bytes=32_768)
    num_free = torch.cuda.mem_get_info()[0]
    filling = torch.empty(num_free - (256 << 20), dtype=torch.uint8, device="cuda")
    try:
        scorer.warm_up()
        assert MIN_PASS_BYTES <= scorer.pass_bytes < 32_768
        [result] = scorer.score([ScoreRequest(text=bytes(32_767))])
    finally:
        del filling
        torch.cuda.empty_cache()

    assert result["num_bytes"] == 32_767
