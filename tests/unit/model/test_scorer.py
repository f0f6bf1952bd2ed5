import math
from dataclasses import replace

import numpy as np
import orjson
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.errors import TextTooLarge
from contract.grammar.vocabulary import encode
from model import (
    EvaByteConfig,
    EvaByteForCausalLM,
    OutOfMemory,
    Scorer,
    ScoreRequest,
    ScoringFailed,
)
from model.scoring.forward import Reader
from model.scoring.sliding_window import SlidingWindow

# float32 sums in another order, over a hundred bytes of this model.
TOLERANCE_NATS = 1e-3
ALL_OUTPUTS = frozenset({"summary", "bytes", "top_k", "curvature"})
TEXTS = [b"a", b"ab" * 7, bytes(range(256)), b"windows of 16 bytes", b"\xff" * 33, b"z" * 16]

texts = st.binary(min_size=1, max_size=70)
few_examples = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def score(scorer: Scorer, *requests: ScoreRequest) -> list[dict]:
    return scorer.score(requests)


def nats(scorer: Scorer, text: bytes) -> float:
    return score(scorer, ScoreRequest(text=text))[0]["log_likelihood_nats"]


def exact_log_probs(model, text: bytes) -> torch.Tensor:
    """[bytes, 320] float64 of the model's own float32 logits."""
    ids = torch.tensor([encode(text)])
    with torch.no_grad():
        return model(ids).logits[0, :-1].double().log_softmax(-1)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{len(text)} bytes")
def test_every_output_agrees_with_brute_force_in_float64(scorer, tiny_model, text):
    request = ScoreRequest(text=text, outputs=ALL_OUTPUTS, top_k=5)

    [result] = score(scorer, request)

    log_probs = exact_log_probs(tiny_model, text)
    targets = torch.tensor(encode(text)[1:])
    chosen = log_probs.gather(1, targets[:, None])
    probs = log_probs.exp()
    means = (probs * log_probs).sum(1)
    variances = (probs * log_probs**2).sum(1) - means**2
    total = chosen.sum().item()
    assert result["num_bytes"] == len(text)
    assert result["log_likelihood_nats"] == pytest.approx(total, abs=TOLERANCE_NATS)
    assert result["bits_per_byte"] == pytest.approx(-total / len(text) / math.log(2), abs=1e-4)
    assert result["byte_perplexity"] == pytest.approx(math.exp(-total / len(text)), rel=1e-4)
    assert result["curvature"] == pytest.approx(
        ((total - means.sum()) / variances.sum().sqrt()).item(), abs=1e-3
    )
    by_byte = result["bytes"]
    assert by_byte["log_prob_nats"] == pytest.approx(chosen[:, 0].tolist(), abs=1e-4)
    assert by_byte["entropy_bits"] == pytest.approx((-means / math.log(2)).tolist(), abs=1e-4)
    ranks = 1 + (log_probs > chosen).sum(1)
    assert by_byte["rank"] == ranks.tolist()
    assert result["is_greedy"] == bool((ranks == 1).all())
    top = log_probs.topk(5)
    ids = [[value + 64 for value, _ in likeliest] for likeliest in result["top_k"]]
    assert ids == top.indices.tolist()
    for likeliest, expected in zip(result["top_k"], top.values.tolist(), strict=True):
        assert [log_prob for _, log_prob in likeliest] == pytest.approx(expected, abs=1e-4)


def test_bytes_add_up_to_the_text(scorer):
    [result] = score(scorer, ScoreRequest(text=bytes(range(256)), outputs=frozenset({"bytes"})))

    total = math.fsum(result["bytes"]["log_prob_nats"])
    assert total == pytest.approx(result["log_likelihood_nats"], rel=1e-12)


@few_examples
@given(text=st.binary(min_size=2, max_size=100), data=st.data())
def test_parts_given_what_precedes_add_up_to_the_whole(scorer, text, data):
    cut = data.draw(st.integers(1, len(text) - 1))

    rest = ScoreRequest(context=text[:cut], continuations=(text[cut:],))

    [result] = score(scorer, rest)
    of_rest = result["continuations"][0]["log_likelihood_nats"]
    whole = nats(scorer, text)
    assert nats(scorer, text[:cut]) + of_rest == pytest.approx(whole, abs=TOLERANCE_NATS)


@few_examples
@given(batch=st.lists(texts, min_size=1, max_size=12))
def test_batch_mates_change_nothing(scorer, batch):
    together = score(scorer, *(ScoreRequest(text=text) for text in batch))

    for text, result in zip(batch, together, strict=True):
        assert result["num_bytes"] == len(text)
        assert result["log_likelihood_nats"] == pytest.approx(
            nats(scorer, text), abs=TOLERANCE_NATS
        )


@few_examples
@given(batch=st.lists(texts, min_size=2, max_size=12), data=st.data())
def test_order_changes_nothing(scorer, batch, data):
    order = data.draw(st.permutations(range(len(batch))))

    before = score(scorer, *(ScoreRequest(text=text) for text in batch))
    after = score(scorer, *(ScoreRequest(text=batch[number]) for number in order))

    for number, result in zip(order, after, strict=True):
        expected = before[number]["log_likelihood_nats"]
        assert result["log_likelihood_nats"] == pytest.approx(expected, abs=TOLERANCE_NATS)


def test_what_others_ask_for_changes_no_result(scorer):
    plain = ScoreRequest(text=b"plain")
    rich = ScoreRequest(text=b"richer", outputs=ALL_OUTPUTS, top_k=3)
    poor = ScoreRequest(text=b"poorer", outputs=ALL_OUTPUTS, top_k=1)

    results = score(scorer, plain, rich, poor)

    assert set(results[0]) == {
        *("num_bytes", "num_chars", "log_likelihood_nats"),
        *("bits_per_byte", "byte_perplexity", "is_greedy"),
    }
    assert [len(likeliest) for likeliest in results[1]["top_k"]] == [3] * 6
    assert [len(likeliest) for likeliest in results[2]["top_k"]] == [1] * 6


def test_continuations_are_scored_each_given_the_context(scorer):
    request = ScoreRequest(
        context=b"16 + 16 = ", continuations=(b"32", b"33, or so"), outputs=ALL_OUTPUTS, top_k=2
    )

    [result] = score(scorer, request)

    for continuation, scored in zip(request.continuations, result["continuations"], strict=True):
        whole = nats(scorer, request.context + continuation)
        expected = whole - nats(scorer, request.context)
        assert scored["log_likelihood_nats"] == pytest.approx(expected, abs=TOLERANCE_NATS)
        assert scored["num_bytes"] == len(continuation)
        assert len(scored["bytes"]["rank"]) == len(scored["top_k"]) == len(continuation)


def test_greedy_text_is_distinguished_from_others(scorer, tiny_model):
    text = b""
    while len(text) < 5:  # write what the model finds likeliest among the bytes
        with torch.no_grad():
            logits = tiny_model(torch.tensor([encode(text)])).logits[0, -1]
        text += bytes([int(logits[64:].argmax())])
    [result] = score(scorer, ScoreRequest(text=text, outputs=frozenset({"bytes"})))

    assert result["is_greedy"] == (max(result["bytes"]["rank"]) == 1)
    assert not score(scorer, ScoreRequest(text=bytes(range(50))))[0]["is_greedy"]


@pytest.mark.parametrize(
    ("text", "num_chars"),
    [(b"abc", 3), ("né€😀".encode(), 4), (b"\xff", None), ("né".encode()[:2], None), (b"\x00", 1)],
    ids=str,
)
def test_characters_are_counted_where_the_text_is_utf_8(scorer, text, num_chars):
    assert score(scorer, ScoreRequest(text=text))[0]["num_chars"] == num_chars


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 199, 200, 201, 511])
def test_texts_of_every_length_near_a_boundary_are_scored(scorer, tiny_model, length):
    text = bytes(number * 7 % 256 for number in range(length))

    expected = exact_log_probs(tiny_model, text)
    expected = expected[range(length), [byte + 64 for byte in text]].sum().item()
    assert nats(scorer, text) == pytest.approx(expected, abs=TOLERANCE_NATS)


def test_thousands_of_short_texts_are_scored(tiny_checkpoint):
    scorer = Scorer.load(str(tiny_checkpoint))
    batch = [bytes([number % 256]) * (1 + number % 9) for number in range(5000)]

    results = scorer.score([ScoreRequest(text=text) for text in batch])

    assert [result["num_bytes"] for result in results] == [len(text) for text in batch]
    assert results[2304]["log_likelihood_nats"] == pytest.approx(
        nats(scorer, batch[2304]), abs=TOLERANCE_NATS
    )


def test_passes_are_bounded_and_reported(tiny_checkpoint):
    scorer = Scorer.load(str(tiny_checkpoint), pass_bytes=100)
    passes: list[int] = []

    requests = [ScoreRequest(text=b"x" * length) for length in (40, 300, 1, 60, 100, 41)]
    scorer.score(requests, on_pass=passes.append)

    assert sum(passes) == 542
    assert max(passes) <= 100


def test_nothing_asked_is_nothing_answered(scorer):
    assert scorer.score([]) == []


def test_text_at_the_limit_is_scored_and_one_beyond_refused(scorer):
    limit = scorer.info.max_text_bytes
    assert limit == 511

    assert score(scorer, ScoreRequest(text=b"x" * limit))[0]["num_bytes"] == limit
    with pytest.raises(TextTooLarge, match="limit is 511") as caught:
        score(scorer, ScoreRequest(text=b"x" * (limit + 1)))
    assert caught.value.code == "text_too_large"


def test_results_are_json_as_they_are(scorer):
    requests = [ScoreRequest(text=text, outputs=ALL_OUTPUTS, top_k=320) for text in TEXTS]
    requests.append(ScoreRequest(continuations=(b"a", b"b"), outputs=ALL_OUTPUTS, top_k=2))

    results = scorer.score(requests)

    assert orjson.loads(orjson.dumps(results)) == results


def with_head(scorer: Scorer, tiny_model, weight: torch.Tensor) -> Scorer:
    """A scorer of the same layers whose head has this weight."""
    model = type(tiny_model)(tiny_model.config).eval()
    model.load_state_dict(tiny_model.state_dict() | {"lm_head.weight": weight})
    return Scorer(model, scorer.info, folder=scorer.folder, pass_bytes=200)


def test_extreme_scores_stay_json(scorer, tiny_model):
    """Logits of a million: certain of one id, 10^6 nats away from the others."""
    extreme = with_head(scorer, tiny_model, tiny_model.lm_head.weight.detach() * 1e5)

    [result] = score(extreme, ScoreRequest(text=b"text", outputs=ALL_OUTPUTS, top_k=2))

    assert result["byte_perplexity"] is None
    assert result["log_likelihood_nats"] < -1e4
    assert orjson.loads(orjson.dumps(result)) == result
    numbers = [*result["bytes"]["entropy_bits"], *result["bytes"]["log_prob_nats"]]
    assert np.isfinite(numbers).all()


def test_certain_text_has_no_curvature(scorer, tiny_model):
    weight = torch.zeros_like(tiny_model.lm_head.weight)
    weight[64:] = tiny_model.lm_head.weight.detach()[64:] * 1e9
    certain = with_head(scorer, tiny_model, weight)

    [result] = score(certain, ScoreRequest(text=b"t", outputs=frozenset({"curvature", "bytes"})))

    assert result["bytes"]["entropy_bits"] == [0.0]
    assert result["curvature"] is None


def test_scores_that_are_no_numbers_are_an_error(scorer, tiny_model):
    broken = with_head(scorer, tiny_model, torch.full_like(tiny_model.lm_head.weight, math.nan))

    with pytest.raises(ScoringFailed, match="not finite"):
        score(broken, ScoreRequest(text=b"text"))


def test_memory_that_runs_out_is_reported_as_such(scorer, monkeypatch):
    """The CPU allocator's real error, for a request that no machine can meet."""
    monkeypatch.setattr(scorer._model, "lay_out", lambda *_, **__: torch.empty(1 << 60))

    with pytest.raises(OutOfMemory, match="score shorter texts"):
        score(scorer, ScoreRequest(text=b"text"))


def test_passes_keep_their_size_where_none_would_fit(tiny_checkpoint, monkeypatch):
    scorer = Scorer.load(str(tiny_checkpoint), pass_bytes=2048)
    monkeypatch.setattr(scorer._model, "lay_out", lambda *_, **__: torch.empty(1 << 60))

    with pytest.raises(OutOfMemory):
        score(scorer, ScoreRequest(text=b"text"))

    assert scorer.pass_bytes == 2048


def test_weights_that_do_not_fit_are_refused_in_one_line(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("model.weights.loading.load_model", lambda *_, **__: torch.empty(1 << 60))

    with pytest.raises(OutOfMemory, match="do not fit into the memory of cpu; use quantization"):
        Scorer.load(str(tiny_checkpoint))


def test_model_tells_what_it_is(scorer, tiny_checkpoint):
    info = scorer.info.as_json()

    assert orjson.loads(orjson.dumps(info)) == info
    assert info["name"] == tiny_checkpoint.name
    assert info["num_parameters"] == 61_728
    assert (info["dtype"], info["device"], info["is_demo"]) == ("float32", "cpu", False)
    assert (info["window_size"], info["chunk_size"]) == (16, 4)


def test_warm_up_scores_something(scorer):
    scorer.warm_up()


@pytest.mark.parametrize("pass_bytes", [1, 16, 40, 48, 100, 300])
def test_text_longer_than_a_pass_has_the_scores_of_one_pass(tiny_checkpoint, pass_bytes):
    text = bytes(number * 7 % 256 for number in range(301))
    request = ScoreRequest(text=text, outputs=ALL_OUTPUTS, top_k=3)
    [expected] = Scorer.load(str(tiny_checkpoint), pass_bytes=400).score([request])
    passes: list[int] = []

    [result] = Scorer.load(str(tiny_checkpoint), pass_bytes=pass_bytes).score(
        [request], on_pass=passes.append
    )

    assert max(passes) <= max(pass_bytes, 16)
    assert sum(passes) == len(text)
    for name in ("log_prob_nats", "entropy_bits"):
        assert result["bytes"][name] == pytest.approx(expected["bytes"][name], abs=1e-4)
    assert result["curvature"] == pytest.approx(expected["curvature"], abs=1e-3)
    assert len(result["top_k"]) == len(text)


@torch.inference_mode()
def test_longest_text_of_the_published_size_passes_window_by_window():
    """32,767 bytes through windows of 2,048 tokens, of which one pass holds two."""
    config = EvaByteConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_pred_heads=1,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = EvaByteForCausalLM(config).eval()
    text = bytes(number * 7 % 256 for number in range(32767))
    targets = torch.tensor(encode(text)[1:])

    [whole] = Reader(model, len(text)).read([text])
    pieces = list(Reader(model, 5000).read([text]))

    assert [len(piece) for piece in pieces] == [4096] * 7 + [4095]
    of_whole, of_pieces = (
        (hidden @ model.next_id_weight.T).log_softmax(-1).gather(1, targets[:, None])
        for hidden in (whole, torch.cat(pieces))
    )
    torch.testing.assert_close(of_pieces, of_whole, rtol=0, atol=1e-4)


@few_examples
@given(
    context=st.binary(max_size=60),
    continuations=st.lists(st.binary(min_size=1, max_size=45), min_size=2, max_size=6),
)
def test_continuations_of_a_shared_context_score_as_alone(scorer, context, continuations):
    requests = [ScoreRequest(context=context, continuations=(each,)) for each in continuations]
    family = ScoreRequest(context=context, continuations=tuple(continuations))

    [together], alone = score(scorer, family), score(scorer, *requests)

    for shared, single in zip(together["continuations"], alone, strict=True):
        assert shared["num_bytes"] == single["continuations"][0]["num_bytes"]
        assert shared["log_likelihood_nats"] == pytest.approx(
            single["continuations"][0]["log_likelihood_nats"], abs=TOLERANCE_NATS
        )


def test_context_of_many_continuations_is_read_once(scorer):
    passes: list[int] = []
    families = [
        ScoreRequest(context=bytes([letter]) * 150, continuations=tuple([b"yes", b"no"] * 40))
        for letter in b"abc"
    ]

    scorer.score(families, on_pass=passes.append)

    assert sum(passes) == sum(family.num_bytes for family in families) == 3 * (150 + 200)
    assert max(passes) <= 200


def test_continuation_longer_than_a_pass_scores_as_alone(scorer):
    """Passes of this scorer hold 200 bytes; the context has more, too."""
    context, long, short = b"context " * 30, b"long" * 60, b"short"
    family = ScoreRequest(context=context, continuations=(long, short, short))

    [together] = score(scorer, family)

    for text, result in zip(family.continuations, together["continuations"], strict=True):
        expected = nats(scorer, context + text) - nats(scorer, context)
        assert result["log_likelihood_nats"] == pytest.approx(expected, abs=TOLERANCE_NATS)


def test_text_in_windows_has_each_byte_scored_in_the_first_window_that_holds_it(scorer):
    text = bytes(number * 7 % 256 for number in range(700))
    window = SlidingWindow(size_bytes=300, stride_bytes=160)

    [result] = score(scorer, ScoreRequest(text=text, window=window, outputs=frozenset({"bytes"})))

    assert result["windows"] == [
        {"start": 0, "end": 300, "context_from": 0},
        {"start": 300, "end": 460, "context_from": 160},
        {"start": 460, "end": 620, "context_from": 320},
        {"start": 620, "end": 700, "context_from": 480},
    ]
    assert result["num_bytes"] == 700
    expected = [
        ScoreRequest(context=text[start:middle], continuations=(text[middle:end],))
        for middle, end, start in (each.values() for each in result["windows"])
    ]
    total = sum(
        part["continuations"][0]["log_likelihood_nats"] for part in score(scorer, *expected)
    )
    assert result["log_likelihood_nats"] == pytest.approx(total, abs=TOLERANCE_NATS)
    assert len(result["bytes"]["rank"]) == 700


def test_text_that_fits_its_first_window_scores_as_without(scorer):
    window = SlidingWindow(size_bytes=300, stride_bytes=160)

    [result] = score(scorer, ScoreRequest(text=b"short", window=window))

    assert result.pop("windows") == [{"start": 0, "end": 5, "context_from": 0}]
    assert [result] == score(scorer, ScoreRequest(text=b"short"))


def test_next_characters_come_with_the_score(scorer):
    texts = [b"", b"text", "\u00e9t\u00e9".encode(), b"at the limit" * 42 + b"...."]
    plain, asked = (
        score(scorer, *(ScoreRequest(text=text, next_chars=k) for text in texts if text or k))
        for k in (0, 3)
    )

    predicted = [result.pop("next_chars") for result in asked]
    assert asked[1:] == plain
    assert predicted == scorer.predict_characters(texts, 3)
    assert [len(each["characters"]) for each in predicted] == [3] * 4
    assert asked[0]["num_bytes"] == 0


@pytest.mark.parametrize("texts", [[b""], [b"", b"abc"], [b"abc", b"", b"de"]], ids=str)
def test_empty_text_leaves_the_scores_of_others_as_they_are(scorer, texts):
    results = scorer.score([ScoreRequest(text=text) for text in texts])
    alone = [scorer.score([ScoreRequest(text=text)])[0] for text in texts]
    assert results == alone
    empty = results[texts.index(b"")]
    assert (empty["num_bytes"], empty["log_likelihood_nats"]) == (0, 0.0)


def test_empty_continuation_costs_nothing_beside_others(scorer):
    request = ScoreRequest(context=b"ab", continuations=(b"", b"c"))
    [found] = scorer.score([request])
    assert [each["num_bytes"] for each in found["continuations"]] == [0, 1]
    assert found["continuations"][0]["log_likelihood_nats"] == 0.0


def test_empty_text_has_every_output_that_is_asked_for(scorer):
    request = ScoreRequest(next_chars=1, outputs=ALL_OUTPUTS, top_k=2, spans="words")
    full = replace(request, text=b"a")

    empty, one_byte = score(scorer, request, full)

    assert empty.keys() == one_byte.keys()
    assert orjson.loads(orjson.dumps(empty)) == empty


def test_text_is_read_once_for_its_score_and_its_next_character(scorer):
    passes: list[int] = []
    texts = [b"x" * 50, b"y" * 70]

    scorer.score([ScoreRequest(text=text, next_chars=1) for text in texts], on_pass=passes.append)

    assert passes[0] == 120
    assert sum(passes[1:]) < 50  # beginnings of characters


def test_text_without_room_for_a_next_character_is_refused(scorer):
    with pytest.raises(TextTooLarge, match="limit is 508"):
        scorer.predict_characters([b"x" * 509], 1)
