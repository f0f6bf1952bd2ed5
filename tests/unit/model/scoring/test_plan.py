"""Plans: how requests are cut into slices, and that joined slices give the result of the whole."""

import math

import pytest
import torch

from model import Plan, Scorer, ScoreRequest, ScoringFailed, Slice
from model.scoring.results import make_lists
from model.scoring.sliding_window import SlidingWindow

# float32 sums in another order, over a hundred bytes of this model.
TOLERANCE_NATS = 1e-3
ALL_OUTPUTS = frozenset({"summary", "bytes", "top_k", "curvature"})
WINDOW = SlidingWindow(size_bytes=96, stride_bytes=32)


def scored_in_any_order(scorer, slices) -> list:
    """The scores of each slice, scored one by one from the last to the first."""
    scores = [scorer.score_slices([each])[0] for each in reversed(slices)]
    return scores[::-1]


@pytest.mark.parametrize(
    "request_",
    [
        ScoreRequest(text=b"x" * 1000),
        ScoreRequest(context=b"c" * 10, continuations=(b"x" * 1000,)),
        ScoreRequest(text=b"x", window=WINDOW),
    ],
    ids=["text", "one continuation", "one window"],
)
def test_request_that_cannot_be_cut_is_one_slice(request_):
    plan = Plan.of(request_, max_slice_bytes=1)

    assert [each.num_bytes for each in plan.slices] == [request_.num_bytes]


def test_plan_without_a_limit_is_one_slice():
    request = ScoreRequest(text=b"x" * 1000, window=WINDOW)

    assert Plan.of(request).slices == (Slice(request, tuple(request.windows)),)


@pytest.mark.parametrize("max_slice_bytes", [1, 500, 10_000])
def test_slices_of_a_text_with_windows_join_to_the_result_of_the_whole(scorer, max_slice_bytes):
    request = ScoreRequest(
        text=bytes(number * 7 % 256 for number in range(700)),
        window=SlidingWindow(size_bytes=96, stride_bytes=32),
        outputs=ALL_OUTPUTS,
        top_k=3,
        spans=((0, 700), (90, 100)),
    )
    [whole] = scorer.score([request])

    plan = Plan.of(request, max_slice_bytes)

    assert sum(each.num_bytes for each in plan.slices) == request.num_bytes
    assert all(each.num_bytes <= max(max_slice_bytes, 96) for each in plan.slices)
    joined = plan.join(scored_in_any_order(scorer, plan.slices))
    make_lists([joined])
    assert joined.keys() == whole.keys()
    assert joined["bytes"]["rank"] == whole["bytes"]["rank"]
    assert joined["windows"] == whole["windows"]
    for name in ("log_likelihood_nats", "curvature"):
        assert joined[name] == pytest.approx(whole[name], abs=TOLERANCE_NATS)


@pytest.mark.parametrize("max_slice_bytes", [1, 55, 10_000])
def test_slices_of_continuations_join_to_the_result_of_the_whole(scorer, max_slice_bytes):
    continuations = tuple(f"answer {number}".encode() for number in range(5))
    request = ScoreRequest(context=b"a question of 24 bytes? ", continuations=continuations)
    [whole] = scorer.score([request])

    plan = Plan.of(request, max_slice_bytes)

    joined = plan.join(scored_in_any_order(scorer, plan.slices))
    pairs = zip(joined["continuations"], whole["continuations"], strict=True)
    for found, expected in pairs:
        assert found["num_bytes"] == expected["num_bytes"]
        assert found["log_likelihood_nats"] == pytest.approx(
            expected["log_likelihood_nats"], abs=TOLERANCE_NATS
        )


def test_slice_whose_scores_are_not_finite_fails_before_it_is_joined(scorer, tiny_model):
    model = type(tiny_model)(tiny_model.config).eval()
    model.load_state_dict(
        tiny_model.state_dict()
        | {"lm_head.weight": torch.full_like(tiny_model.lm_head.weight, math.nan)}
    )
    broken = Scorer(model, scorer.info, folder=scorer.folder, pass_bytes=200)
    window = SlidingWindow(size_bytes=96, stride_bytes=64)
    plan = Plan.of(ScoreRequest(text=bytes(300), window=window), max_slice_bytes=96)

    with pytest.raises(ScoringFailed):
        broken.score_slices(plan.slices[:1])
