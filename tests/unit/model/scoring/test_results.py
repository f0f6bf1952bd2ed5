"""Results built from the arrays of a pass: the same as when each byte is taken alone."""

import gc
import json
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.grammar.result_json import dump_result
from contract.grammar.vocabulary import NUM_SPECIAL_IDS, VOCABULARY_SIZE
from model.machine.collector import collector_paused
from model.scoring.log_likelihood import ByteScores
from model.scoring.request import ScoreRequest
from model.scoring.results import NATS_PER_BIT, ScoredText, make_lists, to_results


def drawn_scores(num_bytes: int, top_k: int, seed: int) -> ByteScores:
    generator = np.random.default_rng(seed)
    top_ids = np.argsort(generator.random((num_bytes, VOCABULARY_SIZE)), axis=1)[:, :top_k]
    return ByteScores(
        log_prob=-generator.exponential(size=num_bytes).astype(np.float32),
        rank=generator.integers(1, VOCABULARY_SIZE + 1, num_bytes),
        entropy=None,
        variance=None,
        top_ids=top_ids if top_k else None,
        top_log_probs=(
            np.sort(-generator.exponential(size=(num_bytes, top_k)).astype(np.float32))[:, ::-1]
            if top_k
            else None
        ),
    )


def likeliest_by_byte(scores: ByteScores, start: int, end: int, top_k: int) -> list:
    """Return the output `top_k` of the bytes from `start` to `end`, one pair at a time."""
    return [
        [
            [
                int(scores.top_ids[row, place]) - NUM_SPECIAL_IDS,
                float(scores.top_log_probs[row, place]),
            ]
            for place in range(top_k)
        ]
        for row in range(start, end)
    ]


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(
        st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([0, 0, 1, 2, 5, 320])),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1 << 30),
)
def test_likeliest_ids_are_those_of_each_byte_alone(texts, seed):
    scored = [ScoredText(text, frozenset(), top_k) for text, top_k in texts]
    num_bytes = sum(len(text) for text, _ in texts)
    scores = drawn_scores(num_bytes, max(top_k for _, top_k in texts), seed)

    results = to_results(scored, scores)
    encoded = orjson.loads(dump_result(results))
    make_lists(results)

    start = 0
    for (text, top_k), result, stored in zip(texts, results, encoded, strict=True):
        end = start + len(text)
        if top_k:
            expected = likeliest_by_byte(scores, start, end, top_k)
            assert result["top_k"] == expected
            # Not only equal: also of the types that JSON knows.
            assert json.dumps(result["top_k"]) == json.dumps(expected)
            assert json.dumps(stored["top_k"]) == json.dumps(expected)
        else:
            assert "top_k" not in result
        start = end


def test_stored_numbers_of_bytes_are_those_of_the_result():
    scored = [ScoredText(b"abc", frozenset({"bytes"}), 0), ScoredText(b"d", frozenset(), 0)]
    scores = replace(drawn_scores(4, 0, 0), entropy=np.array([0.5, -1e-9, 1, 2], np.float32))
    results = to_results(scored, scores)
    stored = dump_result(results)

    make_lists(results)
    assert results[0]["bytes"] == {
        "log_prob_nats": scores.log_prob[:3].tolist(),
        "rank": scores.rank[:3].tolist(),
        "entropy_bits": (np.maximum(scores.entropy[:3], 0) / NATS_PER_BIT).tolist(),
    }
    assert stored == orjson.dumps(json.loads(json.dumps(results)))


def test_results_for_json_are_the_results(scorer):
    requests = [
        ScoreRequest(b"abc", outputs=frozenset({"bytes", "top_k"}), top_k=3),
        ScoreRequest(b"", outputs=frozenset({"bytes", "top_k"}), top_k=3),
        ScoreRequest(
            context=b"ab", continuations=(b"c", b"", b"de"), outputs=frozenset({"top_k"}), top_k=2
        ),
    ]
    results = scorer.score(requests)
    assert orjson.dumps(results) == dump_result(scorer.score(requests, for_json=True))
    lists = [each["top_k"] for each in (*results[:2], *results[2]["continuations"])]
    assert {type(each) for each in (*lists, *results[0]["bytes"].values())} == {list}


def test_results_outlive_the_arrays_of_their_pass():
    scored = [ScoredText(b"abc", frozenset({"bytes"}), 2)]
    scores = replace(drawn_scores(3, 2, 0), entropy=np.ones(3, np.float32))
    results = to_results(scored, scores)
    before = dump_result(results)
    for column in (scores.log_prob, scores.rank, scores.entropy, scores.top_log_probs):
        column[:] = 0
    scores.top_ids[:] = 0
    assert dump_result(results) == before
    make_lists(results)
    assert dump_result(results) == before


def test_texts_share_no_list():
    scored = [ScoredText(b"ab", frozenset(), 2)] * 2
    results = to_results(scored, drawn_scores(4, 2, 0))
    make_lists(results)
    before = json.dumps(results[1])
    for pairs in results[0]["top_k"]:
        pairs[0][0] = None
        pairs.clear()
    results[0]["top_k"].clear()
    assert json.dumps(results[1]) == before


def fail_while_paused() -> None:
    with collector_paused():
        assert not gc.isenabled()
        raise MemoryError


@pytest.mark.parametrize("is_enabled", [True, False])
def test_collector_is_afterwards_as_it_was(is_enabled):
    before = gc.isenabled()
    try:
        (gc.enable if is_enabled else gc.disable)()
        with pytest.raises(MemoryError):
            fail_while_paused()
        assert gc.isenabled() == is_enabled
    finally:
        (gc.enable if before else gc.disable)()
