"""The request IDs that a worker's log lines show."""

from worker.process.request_ids import _MAX_JOBS, RequestIds


def test_request_of_a_job_is_found_by_its_task_id():
    requests = RequestIds()
    requests.remember("a", "r-1")
    requests.remember("b", "")
    assert [requests.of(each) for each in ("a", "b", None)] == ["r-1", "", ""]


def test_oldest_jobs_are_forgotten():
    requests = RequestIds()
    for number in range(_MAX_JOBS + 1):
        requests.remember(str(number), "r")
    assert (requests.of("0"), requests.of("1")) == ("", "r")
