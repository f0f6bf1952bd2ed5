"""The thread that makes Redis forget deleted texts survives errors, and does not poll too often."""

import pytest
import redis
from structlog.testing import capture_logs

from app.service.forgetting import look, pause_between_looks_s


class Watch:
    """Raises one error after another; None is a look that succeeds."""

    def __init__(self, *errors: Exception | None) -> None:
        self._errors = list(errors)

    def run(self) -> None:
        """Look once."""
        error = self._errors.pop(0)
        if error is not None:
            raise error


def test_every_error_is_survived_and_each_kind_is_logged_once():
    errors = (redis.ConnectionError(), KeyError("run_id"), redis.ConnectionError(), None)
    watch, failed = Watch(*errors, redis.ConnectionError()), set()
    with capture_logs() as logged:
        for _ in range(5):
            look(watch, failed)
    assert [(line["event"], line["error"]) for line in logged] == [
        ("forgetting_failed", "ConnectionError"),
        ("forgetting_failed", "KeyError"),
        # Again, after a look that succeeded.
        ("forgetting_failed", "ConnectionError"),
    ]


@pytest.mark.parametrize(
    ("forget_s", "pause_s"), [(0.4, 0.1), (10, 0.1), (300, 3), (3600, 36), (86_400, 60)]
)
def test_pause_is_a_small_share_of_the_time_to_forget(forget_s, pause_s):
    assert pause_between_looks_s(forget_s) == pytest.approx(pause_s)
