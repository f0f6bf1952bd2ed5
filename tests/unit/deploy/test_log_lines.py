"""Log lines as a person reads them at the terminal of `make run`."""

import pytest
from click import unstyle

from app.factory import create_app
from app.routes import assets
from app.service.components import EXTENSION
from contract.settings import load_settings
from deploy.log_lines import POLLED, ROUTE_WIDTH, event_of, readable, redis_message

REQUEST = {
    "event": "request_served",
    "level": "info",
    "timestamp": "2026-01-02T03:04:05.678Z",
    "method": "POST",
    "route": "/score",
    "status": 200,
    "outcome": "accepted",
    "work_bytes": 1234,
    "time_ms": 80.914,
}


def shown(**fields: object) -> str | None:
    line = readable({**REQUEST, **fields})
    return line and unstyle(line).partition("  ")[2]


def test_request_shows_route_status_time_and_bytes():
    assert " ".join(shown().split()) == "POST /score 200 81 ms 1,234 bytes"


def test_one_byte_is_no_plural():
    assert shown(work_bytes=1).endswith("1 byte")
    scored = shown(event="micro_batch_scored", slices=1, bytes=1, compute_ms=2.5)
    assert scored.endswith("1 text  2.5 ms  1 byte")


def test_columns_are_wide_enough_for_every_route():
    app = create_app(load_settings({}))
    app.extensions[EXTENSION].changes.close()
    routes = {rule.rule for rule in app.url_map.iter_rules()} - {assets.ROUTE}
    places = {shown(route=route).index("200") for route in routes - set(POLLED)}
    assert len(places) == 1
    assert len(max(routes, key=len)) == ROUTE_WIDTH
    scored = shown(event="micro_batch_scored", slices=1, bytes=1, compute_ms=2.5)
    assert {scored.index("1 text")} == places


def test_only_an_address_without_a_route_is_called_so():
    assert "(no such route)" in shown(route=None, status=404, outcome="route_not_found")


def test_refused_request_names_the_refusal():
    assert shown(status=422, outcome="invalid_request").endswith("invalid_request")


@pytest.mark.parametrize(
    "fields",
    [
        {"route": "/readyz"},
        {"route": "/readyz", "status": 503},
        {"status": 304},
        {"event": "job_opened"},
        {"event": "job_ended", "state": "SUCCESS"},
        {"event": "Listening at: ...", "logger": "gunicorn.error"},
    ],
)
def test_polls_and_steps_that_other_lines_show_are_left_out(fields):
    assert shown(**fields) is None


def test_wrong_method_of_a_polled_route_is_shown():
    assert "/readyz" in shown(route="/readyz", status=405, outcome="method_not_allowed")


def test_warning_of_a_library_is_shown():
    assert "lost" in shown(event="connection lost", logger="celery.worker", level="warning")


def test_event_that_has_no_form_of_its_own_is_shown_with_its_fields():
    event = {"event": "key_created", "level": "info", "process": "web", "key_id": "k1"}
    assert unstyle(readable(event)) == "--:--:--  web: key_created  key_id=k1"


def test_terminal_gets_no_control_characters_of_a_log_line():
    shown = readable({"event": "a\x1b[2J", "level": "info", "reason": "b\x9bc\u202e"})
    assert unstyle(shown) == "--:--:--  : a\\x1b[2J  reason=b\\x9bc\\x202e"


@pytest.mark.parametrize("line", ["Traceback", "{", '["event"]', '{"a": 1}', ""])
def test_line_that_is_no_event_is_not_taken_for_one(line):
    assert event_of(line) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("32549:M 27 Nov 2026 08:34:42.408 # WARNING Memory overcommit must be enabled!", None),
        ("2467:signal-handler (1795768596) Received SIGTERM scheduling shutdown...", None),
        ("2467:M 27 Nov 2026 08:36:36.447 # Valkey is now ready to exit, bye bye...", None),
        ("7:M 27 Nov 2026 08:36:36.447 # Error writing the AOF", "Error writing the AOF"),
        ("not in its usual form", "not in its usual form"),
    ],
)
def test_line_of_redis_is_shown_unless_it_needs_no_action(line, message):
    assert redis_message(line) == message
