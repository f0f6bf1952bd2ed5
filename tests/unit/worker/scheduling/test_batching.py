"""The choice of the next micro-batch: budgets, priorities, suspects."""

import pytest

from contract import keys
from model import ScoreRequest, Slice
from worker.scheduling.batching import BULK_SHARE, SUSPECTS_TOGETHER, Credit, choose_micro_batch
from worker.scheduling.filling import Budget, OpenJob
from worker.scheduling.room import MAX_LONG_JOBS_BY_TURNS, Room, room_for_fetch
from worker.scheduling.turns import ClientTurns

BUDGET = Budget(bytes=100, slices=10, result_bytes=1000)


def a_job(name: str, *sizes: int, **changes) -> OpenJob:
    slices = [Slice(ScoreRequest(text=b"x" * size)) for size in sizes]
    return OpenJob(name, slices, deadline_at=0.0, **changes)


def bulk(name: str, *sizes: int, **changes) -> OpenJob:
    return a_job(name, *sizes, priority=keys.BULK, **changes)


def chosen(jobs, budget=BUDGET, bulk_bytes=0.0) -> list[tuple[str, int]]:
    choice = choose_micro_batch(jobs, budget, Credit(bulk_bytes))
    return [(share.job.task_id, len(share.slices)) for share in choice.shares]


def finish(choice) -> None:
    for share in choice.shares:
        share.job.outcomes += [{} for _ in share.slices]


def test_nothing_waiting_gives_an_empty_batch():
    assert chosen([]) == []


def test_batch_stops_before_byte_budget():
    assert chosen([a_job("a", 60), a_job("b", 40), a_job("c", 1)]) == [("a", 1), ("b", 1)]


def test_smaller_job_behind_fills_the_room_a_larger_one_left():
    assert chosen([a_job("a", 60), a_job("b", 50), a_job("c", 40)]) == [("a", 1), ("c", 1)]


def test_batch_stops_at_its_number_of_texts():
    jobs = [a_job(str(i), 1) for i in range(11)]
    assert len(chosen(jobs)) == 10


def test_text_larger_than_the_budget_goes_alone():
    assert chosen([a_job("huge", 101), a_job("b", 1)]) == [("huge", 1)]


def test_batch_stops_before_its_results_are_too_large():
    large = a_job("large", 1, 1, result_bytes=[600, 600])
    assert chosen([large, a_job("small", 1, result_bytes=[400])]) == [("large", 1), ("small", 1)]
    large.outcomes.append({})
    assert chosen([large, a_job("b", 1, result_bytes=[401])]) == [("large", 1)]


def test_text_whose_result_is_larger_than_the_budget_goes_alone():
    huge = a_job("huge", 1, result_bytes=[1001])
    assert chosen([huge, a_job("b", 1, result_bytes=[1])]) == [("huge", 1)]


def test_job_of_many_texts_goes_in_slices_until_done():
    job, sizes = a_job("a", *[30] * 7), []
    while not job.is_done:
        choice = choose_micro_batch([job], BUDGET, Credit())
        sizes.append(choice.num_slices)
        finish(choice)
    assert sizes == [3, 3, 1]


def test_interactive_goes_before_bulk_that_came_first():
    assert chosen([bulk("b", 60), a_job("i", 60)]) == [("i", 1)]


def test_interactive_does_not_wait_for_bulk_in_its_own_batch():
    assert chosen([bulk("b", 30, 30, 30), a_job("i", 40)]) == [("i", 1)]


def test_bulk_does_not_starve_under_full_interactive_load():
    job, credit, batches = bulk("b", 100), Credit(), 0
    while not job.is_done:
        choice = choose_micro_batch([a_job(str(batches), 100), job], BUDGET, credit)
        credit = choice.credit
        finish(choice)
        batches += 1
    assert batches == 1 / BULK_SHARE + 1


def test_large_bulk_line_is_scored_beside_interactive_work_and_small_lines():
    large, small, credit = bulk("l", 90, client="l"), bulk("s", *[5] * 500, client="s"), Credit()
    for number in range(100):
        jobs = [a_job(str(number), 100, client="i"), small, large]
        choice = choose_micro_batch(jobs, BUDGET, credit)
        credit = choice.credit
        finish(choice)
        if large.is_done:
            break
    assert large.is_done
    # Nor does the large line keep small ones waiting for ever.
    before = len(small.outcomes)
    for number in range(40):
        choice = choose_micro_batch([a_job(str(number), 100, client="i"), small], BUDGET, credit)
        credit = choice.credit
        finish(choice)
    assert len(small.outcomes) > before


def test_bulk_takes_no_more_of_an_interactive_batch_than_it_has_earned():
    jobs = [bulk("b", 20, 20, 20), a_job("i", 70)]
    choice = choose_micro_batch(jobs, BUDGET, Credit(45.0))
    assert [(share.job.task_id, len(share.slices)) for share in choice.shares] == [("b", 2)]
    assert choice.credit.bulk_bytes == 5 + BUDGET.bytes * BULK_SHARE
    assert chosen([bulk("b", 20, 20, 20), a_job("i", 60)], bulk_bytes=45.0) == [("b", 2), ("i", 1)]


def test_bulk_that_had_a_batch_to_itself_has_earned_nothing():
    assert choose_micro_batch([bulk("b", 10)], BUDGET, Credit(50.0)).credit.bulk_bytes == 0


@pytest.mark.parametrize(("num_crashes", "together"), [(1, SUSPECTS_TOGETHER), (2, 1)])
def test_suspects_of_a_crash_share_no_batch_with_others(num_crashes, together):
    suspects = [a_job(f"s{i}", 1, num_crashes=num_crashes) for i in range(SUSPECTS_TOGETHER + 1)]
    names = [name for name, _ in chosen([*suspects, a_job("innocent", 1)], Budget(100, 100, 1000))]
    assert names == [f"s{i}" for i in range(together)]


@pytest.mark.parametrize("were_passed_over", [False, True])
def test_suspects_and_other_jobs_take_turns(were_passed_over):
    """Jobs that were passed over have a turn only while they are in hand."""
    jobs = [a_job("a", *[100] * 3), a_job("suspect", *[100] * 3, num_crashes=1)]
    gone = {keys.BULK: ClientTurns(were_passed_over=were_passed_over)}
    names, credit = [], Credit(turns=gone)
    while not all(job.is_done for job in jobs):
        choice = choose_micro_batch(jobs, BUDGET, credit)
        credit = choice.credit
        finish(choice)
        names += [share.job.task_id for share in choice.shares]
    assert names == ["suspect", "a"] * 3


def test_long_suspect_yields_to_other_suspects_after_its_slice():
    jobs = [a_job("long", *[100] * 3, num_crashes=1), a_job("short", 1, num_crashes=1)]
    jobs[0].last_micro_batch = 1
    assert chosen(jobs) == [("short", 1)]


def test_next_fetch_fills_one_micro_batch_of_each_priority():
    held = [a_job("a", 30, 20), bulk("b", 60), bulk("c", 50, 51, client="c")]
    held[0].outcomes.append({})
    held.append(a_job("e", 70, is_express=True))
    held.append(a_job("suspect", 80, is_express=True, num_crashes=1))
    rooms = room_for_fetch(held, BUDGET)
    num_long = MAX_LONG_JOBS_BY_TURNS
    assert rooms[keys.INTERACTIVE] == Room(9, 30, 1, 9, 80, num_long, (), 100)
    assert rooms[keys.BULK] == Room(10, 100, 1, 9, 40, num_long - 1, ("c",), 100)


def test_bulk_of_another_client_takes_no_more_than_bulk_has_earned_either():
    """The credit pays for the first job, but it is the turn of a larger one."""
    small, large = bulk("small", 5, client="a"), bulk("large", 90, client="b")
    turns = {keys.BULK: ClientTurns(order=("b", "a"), deficits={"b": 90})}
    credit = Credit(10.0, turns)
    choice = choose_micro_batch([small, large, a_job("i", 60)], BUDGET, credit)
    chosen_names = [share.job.task_id for share in choice.shares]
    assert "i" in chosen_names
    assert "large" not in chosen_names


@pytest.mark.parametrize("num_bulk_bytes", [5, 20, 100, 150])
def test_interactive_slice_that_does_not_fit_behind_bulk_goes_first_in_the_next_batch(
    num_bulk_bytes,
):
    credit = Credit(float(BUDGET.bytes))
    in_the_way = [bulk("b", *[num_bulk_bytes] * 1000)]
    for _ in range(20):
        newcomer = a_job("i", 100, is_express=True)
        num_waited = 0
        while not newcomer.is_done:
            choice = choose_micro_batch([*in_the_way, newcomer], BUDGET, credit)
            credit = choice.credit
            finish(choice)
            num_waited += 1
        assert num_waited <= 2
    assert len(in_the_way[0].outcomes) * num_bulk_bytes >= 100
