"""Passes side by side: the same scores, in order, with threads to each and all given back."""

import threading

import pytest
import torch

from model import OutOfMemory, Scorer, ScoreRequest
from model.scoring.cpu_threads import count_lanes, cut_for_lanes, side_by_side
from model.scoring.forward import Reader

CPU = torch.device("cpu")


@pytest.fixture
def four_threads():
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("pass_bytes", "lanes"), [(1, 1), (511, 1), (1024, 2), (1535, 2), (2048, 4), (1 << 20, 4)]
)
def test_lanes_are_as_many_as_threads_and_bytes_allow(four_threads, pass_bytes, lanes):
    assert count_lanes(CPU, pass_bytes) == lanes
    assert count_lanes(torch.device("cuda"), pass_bytes) == 1


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([100] * 3, [300]),
        ([100] * 6, [300, 300]),
        ([100] * 15, [700, 800]),
        ([100] * 21, [500, 500, 600, 500]),
        ([100, 200, 150, 180], [300, 330]),
        ([1024], [1024]),
        ([600, 600, 600], [600, 600, 600]),
        ([1, 1000, 1000, 24], [1000, 1000, 25]),
    ],
    ids=["short", "two short", "one round", "left over", "dealt out", "limit", "one each", "full"],
)
def test_passes_are_even_where_lanes_can_end_together(lengths, sizes):
    passes = cut_for_lanes(lengths, 1024, 2)
    assert [sum(lengths[number] for number in numbers) for numbers in passes] == sizes
    assert sorted(number for numbers in passes for number in numbers) == list(range(len(lengths)))


def test_results_come_in_order_from_threads_that_share_the_cores(four_threads):
    meeting = threading.Barrier(2, timeout=20)

    def square(number: int) -> tuple[int, int]:
        meeting.wait()  # passes only if two are at work at once
        return number**2, torch.get_num_threads()

    assert list(side_by_side(square, [1, 2, 3, 4], 2)) == [(1, 2), (4, 2), (9, 2), (16, 2)]
    assert torch.get_num_threads() == 4


def test_fewer_calls_than_lanes_share_all_cores(four_threads):
    def threads(_) -> int:
        return torch.get_num_threads()

    assert list(side_by_side(threads, [1], 4)) == [4]
    assert list(side_by_side(threads, [1, 2], 4)) == [2, 2]


def test_failure_reaches_the_caller_and_ends_the_rest(four_threads):
    begun = []

    def fail(number: int) -> None:
        begun.append(number)
        raise MemoryError

    with pytest.raises(MemoryError):
        list(side_by_side(fail, range(1000), 2))
    assert len(begun) < 1000
    assert torch.get_num_threads() == 4


@pytest.fixture
def wide_scorer(tiny_checkpoint) -> Scorer:
    return Scorer.load(str(tiny_checkpoint), pass_bytes=2048)


def test_scores_do_not_depend_on_lanes(wide_scorer, four_threads):
    texts = [bytes([65 + number]) * (1 + 37 * number % 300) for number in range(40)]
    requests = [ScoreRequest(text=text) for text in texts]
    passes: list[int] = []

    together = wide_scorer.score(requests, on_pass=passes.append)

    torch.set_num_threads(1)
    for request, result in zip(requests, together, strict=True):
        [alone] = wide_scorer.score([request])
        assert result["log_likelihood_nats"] == pytest.approx(
            alone["log_likelihood_nats"], abs=1e-3
        )
    assert sum(passes) == sum(map(len, texts))
    assert len(passes) > 4


def test_pass_in_a_lane_that_does_not_fit_is_reported(wide_scorer, four_threads, monkeypatch):
    def read(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(Reader, "read", read)
    with pytest.raises(OutOfMemory):
        wide_scorer.score([ScoreRequest(text=b"a" * 400)] * 20)
