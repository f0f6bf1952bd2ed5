"""From payload to slices and from outcomes to the final record."""

import time
from dataclasses import replace

import orjson
import pytest

from contract.batches import REFUSED, pieces_of_lines
from contract.errors import JobCancelled, JobExpired, JobLost, OutOfMemory, ScoringFailed
from contract.messages import Job, decode_record
from model import SliceScores
from worker.scheduling.batching import Choice, Credit
from worker.scheduling.filling import Share
from worker.scoring.outcomes import (
    failed_ending,
    lost_ending,
    num_texts_ended,
    open_job,
    scored_ending,
)

MODEL = {"name": "tiny", "fingerprint": "0" * 12}
ONE, TWO = SliceScores({"num_bytes": 1}), SliceScores({"num_bytes": 2})


def a_job(*requests: dict, is_single: bool = False) -> Job:
    now = time.time()
    return Job(list(requests), 1, submitted_at=now, deadline_at=now + 60, is_single=is_single)


def opened(job: Job, *, max_slice_bytes: int = 100, max_text_bytes: int = 50):
    return open_job(
        "id",
        job,
        num_crashes=0,
        max_slice_bytes=max_slice_bytes,
        max_text_bytes=max_text_bytes,
        window_size=16,
    )


def ended(job, *outcomes):
    job.outcomes += outcomes
    assert job.is_done
    return decode_record("id", scored_ending(job, MODEL).record)


def test_single_text_ends_with_its_score_and_its_circumstances():
    record = ended(opened(a_job({"text": "ab", "custom_id": "7"}, is_single=True)), TWO)
    assert record.state == "SUCCESS"
    assert record.result["num_bytes"] == 2
    assert record.result["custom_id"] == "7"
    assert record.result["model"] == MODEL
    assert set(record.result["timings_ms"]) == {"queue", "batch_wait", "compute", "total"}


@pytest.mark.parametrize("may_store_apart", [True, False])
def test_large_result_stays_in_the_record_for_a_web_server_of_the_previous_release(may_store_apart):
    accepted = replace(a_job({"text": "ab"}, is_single=True), may_store_apart=may_store_apart)
    job = opened(accepted)
    job.outcomes.append(SliceScores({"num_bytes": 2, "bytes": [0.25] * 5000}))
    ending = scored_ending(job, MODEL)
    record = decode_record("id", ending.record)
    assert (record.apart is not None, bool(ending.stored_result)) == (may_store_apart,) * 2
    assert may_store_apart or len(record.result["bytes"]) == 5000


def test_single_text_that_failed_ends_in_failure():
    record = ended(opened(a_job({"text": "ab"}, is_single=True)), ScoringFailed("no"))
    assert (record.state, record.error["code"]) == ("FAILURE", "scoring_failed")


def test_each_item_has_its_own_outcome_in_the_order_sent():
    job = a_job({"text": "a"}, {"text": "x" * 51}, {"text": "b", "custom_id": "c"})
    record = ended(opened(job), ONE, ScoringFailed("no"))
    assert record.state == "SUCCESS"
    first, second, third = record.result["items"]
    assert first == {"result": {"num_bytes": 1}}
    assert second["error"]["code"] == "text_too_large"
    assert (third["custom_id"], third["error"]["code"]) == ("c", "scoring_failed")


def test_text_that_the_model_refuses_is_over_without_a_micro_batch():
    job = opened(a_job({"text": "x" * 51}, is_single=True))
    assert job.is_done
    assert ended(job).error["code"] == "text_too_large"


@pytest.mark.parametrize(
    ("context_bytes", "max_slice_bytes", "sizes"),
    [
        (20, 70, [5]),
        (20, 69, [4, 1]),
        (20, 45, [2, 2, 1]),
        (20, 1, [2, 2, 1]),
        (40, 60, [4, 1]),
        (0, 1, [1] * 5),
    ],
    ids=str,
)
def test_many_continuations_are_cut_into_slices_and_joined_again(
    context_bytes, max_slice_bytes, sizes
):
    """A slice holds as many bytes as asked for, or as its context, which it reads again."""
    conts = [f"{i}" * 10 for i in range(5)]
    job = opened(
        a_job({"context": "c" * context_bytes, "continuations": conts}, is_single=True),
        max_slice_bytes=max_slice_bytes,
    )
    texts = [each.request.continuations for each in job.slices]
    assert [len(each) for each in texts] == sizes
    scores = [SliceScores({"continuations": [c.decode() for c in each]}) for each in texts]
    assert ended(job, *scores).result["continuations"] == conts


WINDOWED = {"text": "x" * 200, "window": {"size": 48, "stride": 32}}


def test_windows_beyond_a_slice_share_micro_batches_like_other_work():
    job = opened(a_job(WINDOWED, is_single=True), max_slice_bytes=100)

    assert [each.num_bytes for each in job.slices] == [96, 96, 88]
    assert [len(each.windows) for each in job.slices] == [2, 2, 2]
    assert len(opened(a_job(WINDOWED, is_single=True), max_slice_bytes=280).slices) == 1


def test_text_counts_in_the_micro_batch_of_its_last_slice():
    texts = {"text": "a"}, WINDOWED, {"text": "x" * 251}, {"text": "b"}
    job = opened(a_job(*texts), max_slice_bytes=100, max_text_bytes=250)
    counts = []
    while not job.is_done:
        choice = Choice([Share(job, job.slices[len(job.outcomes) :][:2])], Credit())
        counts.append((choice.num_slices, num_texts_ended(choice)))
        job.outcomes += [ONE] * choice.num_slices
    assert counts == [(2, 1), (2, 1), (1, 1)]


def test_text_fails_with_one_of_its_slices():
    job = opened(a_job(WINDOWED, is_single=True), max_slice_bytes=100)
    scores = SliceScores()
    assert ended(job, scores, ScoringFailed("no"), scores).state == "FAILURE"


def test_window_that_the_model_cannot_use_is_refused():
    job = opened(a_job({"text": "x", "window": {"size": 48, "stride": 31}}, is_single=True))
    assert ended(job).error["code"] == "invalid_request"


def test_record_is_json_that_begins_with_its_status():
    job = opened(a_job({"text": "ab"}, is_single=True))
    job.outcomes.append(TWO)
    record = scored_ending(job, MODEL).record
    assert record.startswith(b'{"status":"SUCCESS"')
    assert orjson.loads(record)["task_id"] == "id"


PART = f"{'a' * 32}.512"
BAD = {"code": "empty_text", "message": "is empty", "retryable": False, "line": 9}
PART_JOB = a_job({"text": "a", "custom_id": "c"}, {REFUSED: BAD}, {"text": "b"})


def opened_part():
    return open_job(
        PART, PART_JOB, num_crashes=0, max_slice_bytes=100, max_text_bytes=50, window_size=2048
    )


def part_lines(ending) -> list[dict]:
    text = b"".join(pieces_of_lines(ending.results.lines))
    return [orjson.loads(line) for line in text.splitlines()]


def test_scores_of_a_part_become_lines_of_its_batch_and_not_its_record():
    job = opened_part()
    job.outcomes += [ONE, ScoringFailed("no")]
    ending = scored_ending(job, MODEL)
    assert decode_record(PART, ending.record).result is None
    first, second, third = part_lines(ending)
    assert first == {
        "index": 512,
        "status": "SUCCESS",
        "custom_id": "c",
        "result": {"num_bytes": 1},
    }
    assert (second["index"], second["error"]["code"], second["error"]["line"]) == (
        513,
        "empty_text",
        9,
    )
    assert (third["status"], third["error"]["code"]) == ("FAILURE", "scoring_failed")
    results = ending.results
    assert (results.completed, results.failed, orjson.loads(results.model)) == (1, 2, MODEL)


@pytest.mark.parametrize(
    ("error", "status", "is_expired"),
    [
        (JobCancelled("no"), "REVOKED", False),
        (JobExpired("late"), "REVOKED", True),
        (ScoringFailed("no"), "FAILURE", False),
    ],
)
def test_part_that_fails_as_a_whole_gives_each_line_its_error(error, status, is_expired):
    ending = failed_ending(PART, PART_JOB, error)
    assert [line["status"] for line in part_lines(ending)] == [status, "FAILURE", status]
    assert (ending.results.failed, ending.results.is_expired) == (3, is_expired)


def test_part_whose_texts_are_lost_still_has_as_many_lines():
    ending = lost_ending(PART, PART_JOB.facts(), JobLost("lost"))
    assert [line["index"] for line in part_lines(ending)] == [512, 513, 514]
    assert {line["error"]["code"] for line in part_lines(ending)} == {"job_lost"}


def counters_of(job, *outcomes) -> list[str]:
    job.outcomes += outcomes
    return scored_ending(job, MODEL).counters.split()


def test_texts_that_fail_in_a_job_that_succeeds_are_counted_by_code():
    items = a_job({"text": "a"}, {"text": "x" * 51}, {"text": "b"}, {"text": "c"})
    failed = ScoringFailed("no")
    assert counters_of(opened(items), ONE, failed, failed) == [
        "jobs_succeeded",
        *["text_failed_with:scoring_failed"] * 2,
    ]
    assert counters_of(opened_part(), OutOfMemory("no"), failed) == [
        "jobs_succeeded",
        "text_failed_with:out_of_memory",
        "text_failed_with:scoring_failed",
    ]


def test_text_that_fails_with_its_job_is_counted_too():
    single = opened(a_job({"text": "a"}, is_single=True))
    assert counters_of(single, ScoringFailed("no")) == [
        *("jobs_failed", "failed_with:scoring_failed", "text_failed_with:scoring_failed"),
    ]


@pytest.mark.parametrize(
    ("error", "counters"),
    [
        (JobCancelled("no"), ["jobs_cancelled"]),
        (JobExpired("late"), ["jobs_expired"]),
        (
            JobLost("lost"),
            ["jobs_failed", "failed_with:job_lost", *["text_failed_with:job_lost"] * 2],
        ),
    ],
)
def test_lines_of_a_part_that_fails_as_a_whole_are_counted_except_for_bad_ones(error, counters):
    assert failed_ending(PART, PART_JOB, error).counters.split() == counters


def test_text_that_its_client_must_change_is_not_counted():
    single = opened(a_job({"text": "x" * 51}, is_single=True))
    assert counters_of(single) == ["jobs_failed", "failed_with:text_too_large"]


def test_job_that_is_no_part_has_no_lines():
    assert failed_ending("a" * 32, PART_JOB, ScoringFailed("no")).results is None
