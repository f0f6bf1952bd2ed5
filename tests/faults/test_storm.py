"""A small edition of `make storm`."""

from tests.faults.conftest import RECOVERY_S
from tests.faults.storm import Plan, blow, is_well


def test_nothing_is_lost_or_wrong_while_worker_and_redis_are_killed(start_service):
    plan = Plan(
        num_texts=200,
        worker_kills=2,
        redis_kills=1,
        max_text_bytes=600,
        max_recovery_s=RECOVERY_S,
    )
    report = blow(start_service(), plan)
    assert is_well(report, plan), report
