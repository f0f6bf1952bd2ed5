"""All steps that measure a GPU machine run on a CPU with tiny sizes, the whole service included."""

import json
import subprocess
import sys

import pytest

from bench.first_gpu.plan import STEPS
from contract.settings import REPOSITORY

# For hangs: minutes on a busy machine.
LIMIT_S = 3600
# A figure of each step, and what it is about.
EXPECTED = {
    "products in bf16": "ceiling_tera_per_s",
    "products in int8": "model_bound_bytes_per_s",
    "products in fp8": "layer_merged_tera_per_s",
    "sustained bf16": "tera_per_s",
    "target int8": "times_bf16",
    "offline fp8: no outputs": "share_of_bare",
    "oracle float32 none torch": "worst_log_prob_difference",
    "demo bfloat16 int8 torch": "canary_missed_by",
    "demo bfloat16 nf4 torch": "canary_missed_by",
    "demo bfloat16 fp8 torch": "canary_missed_by",
    "next_chars on the device beside the CPU, torch": "worst_difference",
    "tests: kernels": "skipped",
    "tests: others": "skipped",
    "compile int8": "wall_s",
    "model nf4 torch": "bytes_per_s",
    "company int8": "texts_with_same_bits",
    "model bf16_invariant torch": "bytes_per_s",
    "company bf16_invariant": "texts_with_same_bits",
    "compare int8: packed by the project": "bytes_per_s",
    "compare bf16 torch: padded batches of 4": "share_that_is_text",
    "compare bitsandbytes_int8_threshold_6, packed": "bytes_per_s",
    "profile int8": "pass_ms",
    "operation attention": "torch_ms",
    "latency bf16": "median_ms",
    "offline int8: bytes and top_k 5": "share_of_bare",
    "graph int8": "passes_with_same_bits",
    "service demo: bulk": "texts_per_s",
    "service 6.5B: ready": "seconds",
    "service 6.5B int8: posts of 16 clients": "mean_batch_texts",
}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """The folder of a rehearsal of all steps, and the figures in it."""
    folder = tmp_path_factory.mktemp("rehearsal")
    wheels = folder / "wheels"
    wheels.mkdir()
    command = [
        *("env", f"PYTHON={sys.executable}", f"OUT={folder}", "sh", "bench/first_gpu/run.sh"),
        *(str(wheels), "--cpu-rehearsal", "--budget-s", str(LIMIT_S), "--steps", *STEPS),
    ]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    lines = (folder / "first_gpu.jsonl").read_text().splitlines()
    return ended, folder, {(figure := json.loads(line))["what"]: figure for line in lines}


def test_nothing_fails_and_the_log_has_all_that_was_printed(rehearsal):
    ended, folder, _ = rehearsal
    assert ended.returncode == 0, ended.stdout[-4000:]
    log = (folder / "first_gpu.log").read_text()
    assert "FAILED" not in log
    assert "left out" not in log
    assert ended.stdout == log


@pytest.mark.parametrize("what", EXPECTED)
def test_figure_is_there(rehearsal, what):
    figure = rehearsal[2][what]
    assert isinstance(figure[EXPECTED[what]], int | float)
    assert what in (rehearsal[1] / "table.txt").read_text()


def test_rehearsal_is_right(rehearsal):
    figures = rehearsal[2]
    assert figures["oracle float32 none torch"]["worst_log_prob_difference"] < 5e-4
    assert figures["oracle float32 none torch"]["texts_with_other_bits_in_company"] == 0
    assert figures["service demo: posts of 16 clients"]["statuses"] == {"200": 20}
    assert figures["service 6.5B int8: bulk"]["lines"] == 20
    for kind in ("top_k", "several windows", "continuations", "next_chars", "sliding window"):
        figure = figures[f"{kind} on the device beside the CPU, torch"]
        assert figure["worst_difference"] == 0
        assert figure["is_same_number_of_figures"]


def test_circumstances_come_first(rehearsal):
    first = next(iter(rehearsal[2].values()))
    assert first["what"] == "imported"
    assert "torch" in first["versions"]
