"""What the log says of the requests that load balancers send all the time."""

import logging

from app.server.request_log import PROBED, RequestLog


def test_answer_of_the_probe_is_logged_when_it_changes():
    log = RequestLog()
    answers = [
        (200, None),
        (503, "worker_unavailable"),
        (503, "worker_unavailable"),
        (503, "broker_unavailable"),
        (200, None),
        (200, None),
    ]
    levels = [log._level(PROBED, *answer) for answer in answers]
    assert [level == logging.INFO for level in levels] == [False, True, False, True, True, False]
