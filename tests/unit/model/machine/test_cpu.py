import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import torch

from model.machine import cpu

REPOSITORY = Path(__file__).parents[4]


def test_float32_keeps_its_precision_whatever_the_cpu_chooses():
    cpu.use_onednn_for_float32()

    a, b = torch.randn(200, 512), torch.randn(512, 200)
    assert ((a @ b).double() - a.double() @ b.double()).abs().max() < 1e-3


def test_check_sees_products_that_were_computed_in_bfloat16(monkeypatch):
    """A stand-in for a CPU with matrix tiles: its products have bfloat16's error."""
    setting = torch.backends.mkldnn.matmul
    before, bmm = setting.fp32_precision, torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: bmm(a.bfloat16(), b.bfloat16()).float())
    try:
        setting.fp32_precision = "none"
        assert not cpu.use_onednn_for_float32()
        assert setting.fp32_precision == "none"
    finally:
        setting.fp32_precision = before


def test_freed_memory_is_used_again_without_page_faults():
    """In a process of its own: the heap of this one holds what other tests left."""
    program = """
        import resource, torch
        from model.machine import cpu

        def faults_of_use():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            blocks = [torch.ones(4 << 20) for _ in range(4)]  # 16 MiB each
            del blocks
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        cpu.keep_freed_memory()
        print(faults_of_use(), faults_of_use())
    """
    command = (sys.executable, "-c", textwrap.dedent(program))
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)

    at_first, again = map(int, done.stdout.split())
    num_pages = 4 * (16 << 20) // resource.getpagesize()
    assert again < num_pages / 2 < at_first
