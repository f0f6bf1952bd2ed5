"""`deploy/gcp/keep-alive`: preempted VMs come back, within limits; stopped ones stay stopped."""

import pytest

from contract.settings import REPOSITORY
from deploy.gcp.keep_alive import HOUR_S, Budget

KEEP_ALIVE = REPOSITORY / "deploy" / "gcp" / "keep-alive"
STATE, LAST = "instances describe", "operations list"
PREEMPTED = {"stdout": "compute.instances.preempted\n"}


def keep_alive(cloud, *arguments):
    """Run it with looks in quick succession; it ends by itself in every test."""
    return cloud.run([KEEP_ALIVE, "--every-s", "0.01", *arguments])


def starts(cloud):
    return [call for call in cloud.calls if "instances start evascore" in call]


def test_preempted_vm_is_started_until_a_person_stops_it(cloud):
    for state in ("RUNNING", "TERMINATED", "RUNNING", "TERMINATED"):
        cloud.answer(STATE, stdout=f"{state}\n", times=1)
    cloud.answer(LAST, **PREEMPTED, times=1)
    cloud.answer(LAST, stdout="stop\n")
    ended = keep_alive(cloud)
    assert ended.returncode == 0, ended.stderr
    assert len(starts(cloud)) == 1
    assert "stopped on purpose" in ended.stdout


def test_deleted_vm_ends_it(cloud):
    cloud.answer(STATE, stdout="RUNNING\n", times=1)
    cloud.answer(STATE, code=1, stderr="ERROR: The resource was not found\n")
    ended = keep_alive(cloud)
    assert ended.returncode == 0
    assert "is deleted" in ended.stdout


def test_vm_that_never_was_is_an_error(cloud):
    cloud.answer(STATE, code=1, stderr="ERROR: The resource was not found\n")
    ended = keep_alive(cloud, "--name", "typo", "--zone", "z")
    assert ended.returncode == 1
    assert "there is no VM 'typo' at --zone=z" in ended.stderr


def test_vm_is_that_of_the_environment_unless_an_option_says_otherwise(cloud):
    cloud.answer(STATE, stdout="TERMINATED\n")
    cloud.answer(LAST, stdout="stop\n")
    named = {"VM_NAME": "second", "VM_ZONE": "z", "VM_PROJECT": "p"}
    assert cloud.run([KEEP_ALIVE, "--zone", "other"], **named).returncode == 0
    assert cloud.calls[0].startswith("compute instances describe second")
    assert all("other" in call and "--project=p" in call for call in cloud.calls)


def test_start_is_tried_again_when_no_machine_is_free(cloud):
    cloud.answer(STATE, stdout="TERMINATED\n", times=4)
    cloud.answer(STATE, code=1, stderr="ERROR: The resource was not found\n")
    cloud.answer(LAST, **PREEMPTED, times=1)
    cloud.answer(LAST, stdout="start\n")
    cloud.answer("instances start", code=1, stderr="ZONE_RESOURCE_POOL_EXHAUSTED\n", times=3)
    assert keep_alive(cloud, "--max-starts-per-hour", "1").returncode == 0
    assert len(starts(cloud)) == 4


def test_vm_that_stands_still_for_want_of_a_machine_costs_nothing(cloud):
    cloud.answer(STATE, stdout="TERMINATED\n", times=4)
    cloud.answer(STATE, code=1, stderr="ERROR: The resource was not found\n")
    cloud.answer(LAST, stdout="start\n")
    cloud.answer("instances start", code=1, stderr="ZONE_RESOURCE_POOL_EXHAUSTED\n")
    ended = keep_alive(cloud, "--max-cost", "0.01", "--price-per-hour", "360000")
    assert ended.returncode == 0, ended.stderr
    assert "is deleted" in ended.stdout


def test_starts_are_bounded_per_hour(cloud):
    cloud.answer(STATE, stdout="TERMINATED\n", times=6)
    cloud.answer(STATE, code=1, stderr="ERROR: The resource was not found\n")
    cloud.answer(LAST, **PREEMPTED)
    ended = keep_alive(cloud, "--max-starts-per-hour", "2")
    assert len(starts(cloud)) == 2
    assert "started 2 times within the hour" in ended.stdout


def test_vm_that_has_cost_enough_is_stopped(cloud):
    cloud.answer(STATE, stdout="RUNNING\n")
    cloud.answer("instances stop", code=1, stderr="try again\n", times=1)
    ended = keep_alive(cloud, "--max-cost", "0.01", "--price-per-hour", "36000")
    assert ended.returncode == 1
    assert "raise --max-cost" in ended.stderr
    assert sum("instances stop" in call for call in cloud.calls) == 2


def test_time_in_which_gcloud_did_not_answer_counts(cloud):
    cloud.answer(STATE, code=1, stderr="cut line\n")
    ended = keep_alive(cloud, "--max-cost", "0.01", "--price-per-hour", "36000")
    assert "raise --max-cost" in ended.stderr


def test_dry_run_starts_nothing(cloud):
    cloud.answer(STATE, stdout="TERMINATED\n")
    cloud.answer(LAST, **PREEMPTED)
    assert "would start evascore" in keep_alive(cloud, "--dry-run").stdout
    assert starts(cloud) == []


@pytest.mark.parametrize("cost", ["0", "-1", "nan", "much"])
def test_bad_limit_is_refused(cloud, cost):
    assert keep_alive(cloud, f"--max-cost={cost}").returncode == 2
    assert cloud.calls == []


def test_starts_of_more_than_an_hour_ago_do_not_count():
    budget = Budget(max_starts_per_hour=2, max_cost=1, price_per_hour=1)
    for now in (0.0, 10.0):
        assert budget.may_start(now)
        budget.count_start(now)
    assert not budget.may_start(HOUR_S - 1)
    assert budget.may_start(HOUR_S)
