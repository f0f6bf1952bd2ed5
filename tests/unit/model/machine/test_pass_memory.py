"""Passes are as large as memory allows, and no larger."""

import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import pytest
import torch

from model import EvaByteConfig, EvaByteForCausalLM, Scorer, ScoreRequest
from model.evabyte.kv_rows import KeysValues
from model.machine.pass_memory import (
    MIN_PASS_BYTES,
    Carried,
    Peak,
    carried_of,
    pass_bytes_that_fit,
)
from model.scoring.forward import Contexts, Reader
from tests.conftest import HANG_S

REPOSITORY = Path(__file__).parents[4]
# 10 kB for each byte of text and 300 kB besides.
SMALL, LARGE = Peak(256, 300_000 + 2_560_000), Peak(1024, 300_000 + 10_240_000)


NOTHING = Carried(0, 0.0)


def fitting(free_bytes: int, *, carried: Carried = NOTHING, wanted_bytes: int = 8192) -> int:
    return pass_bytes_that_fit(
        SMALL,
        LARGE,
        free_bytes=free_bytes,
        carried=carried,
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
    longest = fitting(50_000_000, carried=Carried(20_000_000, 0))
    assert 300_000 + 10_000 * longest + 20_000_000 <= 40_000_000
    assert 300_000 + 10_000 * (longest + MIN_PASS_BYTES) + 20_000_000 > 40_000_000

    together = fitting(50_000_000, carried=Carried(20_000_000, 40_000))
    assert 300_000 + 50_000 * together <= 40_000_000
    assert 300_000 + 50_000 * (together + MIN_PASS_BYTES) > 40_000_000


@pytest.mark.parametrize(("wanted", "expected"), [(8192, MIN_PASS_BYTES), (100, 100)])
def test_pass_is_never_without_bytes(wanted, expected):
    assert fitting(0, wanted_bytes=wanted) == expected


def test_pass_that_took_no_more_for_more_bytes_is_as_long_as_wanted():
    flat = (Peak(256, 1000), Peak(1024, 1000))

    found = pass_bytes_that_fit(*flat, free_bytes=10**6, carried=NOTHING, wanted_bytes=8192)

    assert found == 8192


def carried_bytes(contexts: Contexts) -> int:
    return sum(rows.numel() * 4 for layer in contexts.carried for rows in KeysValues(*layer))


def test_longest_text_carries_what_is_reckoned(tiny_model):
    window_size = tiny_model.config.window_size
    most = 0
    for num_bytes in range(1, 3 * window_size + 2):
        contexts = Reader(tiny_model, 2 * window_size).read_contexts([bytes(num_bytes)])
        most = max(most, 2 * carried_bytes(contexts))
        reckoned = carried_of(tiny_model.config, num_bytes, bytes_per_value=4)
        assert reckoned.longest_text_bytes == most


@pytest.mark.parametrize("length", [7, 100, 300])
def test_contexts_of_a_pass_carry_no_more_than_is_reckoned(length, tiny_model):
    texts = [bytes(length)] * 5
    contexts = Reader(tiny_model, 5 * (length + 1)).read_contexts(texts)

    per_byte = carried_of(tiny_model.config, 0, bytes_per_value=4).per_byte
    assert carried_bytes(contexts) <= per_byte * 5 * (length + 1)


def test_contexts_of_the_pass_before_are_gone_when_the_next_are_read(tiny_checkpoint, monkeypatch):
    alive: list[weakref.ref[torch.Tensor]] = []
    read_to_ends = Reader.read_to_ends

    def watched(reader, texts):
        assert all(each() is None for each in alive)
        for hidden, contexts in read_to_ends(reader, texts):
            alive.append(weakref.ref(contexts.last_hidden))
            yield hidden, contexts

    monkeypatch.setattr(Reader, "read_to_ends", watched)
    scorer = Scorer.load(str(tiny_checkpoint), pass_bytes=25)
    next_chars = [ScoreRequest(text=bytes([65 + n]) * 20, next_chars=1) for n in range(3)]
    choices = [
        ScoreRequest(text=b"", context=bytes([65 + n]) * 20, continuations=(b"a", b"b"))
        for n in range(3)
    ]
    scorer.score(next_chars)
    scorer.score(choices)
    scorer.predict_characters([b"a" * 20, b"b" * 20, b"c" * 20], 1)
    assert len(alive) == 9


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
