"""Server-sent events as a client sees them: every state, an end, and a place given back."""

import json
import threading
from contextlib import contextmanager

import pytest

from app.responses.event_stream import Watched, follow
from app.service.waiting import Inbox
from contract.errors import BrokerUnavailable, JobGone, JobUnreadable
from contract.messages import Record
from tests.conftest import wait_until
from tests.web import WebServer

RESULT = {"num_bytes": 5, "bits_per_byte": 2.5}


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    """A server that cuts batches into single texts."""
    short = {"micro_batch_texts": 1, "web_timeout_s": 5, "max_wait_s": 2}
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url, **short).start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def two_places(web_redis, tmp_path):
    """A server where one client may have two streams."""
    server = WebServer(tmp_path, web_redis.url, web_connections=16).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def task_id(http):
    return submit(http)


def submit(http) -> str:
    return http.post("/score", json={"text": "hello"}).json()["id"]


@pytest.fixture
def batch_path(http, outcomes):
    body = b'{"text": "x"}\n' * 3
    response = http.post("/batches", content=body, headers={"Content-Type": "application/x-ndjson"})
    yield response.headers["Location"]
    while outcomes.score_next_part():
        pass


def events_of(lines):
    """Events as dictionaries, comments left out."""
    event = {}
    for line in lines:
        if not line:
            if "data" in event:
                yield {**event, "data": json.loads(event["data"])}
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


@contextmanager
def stream(web: WebServer, path: str, **headers: str):
    with web.client() as client, client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        yield events_of(response.iter_lines())


def test_every_state_of_a_job_is_reported_until_it_ends(web, outcomes, task_id):
    with stream(web, f"/score/{task_id}/events") as events:
        first = next(events)
        assert (first["event"], first["id"], first["data"]["state"]) == ("job", "QUEUED", "QUEUED")
        outcomes.store.open_jobs([task_id])
        assert next(events)["data"]["state"] == "STARTED"
        outcomes.succeed(task_id, RESULT)
        last = next(events)
        assert last["data"]["state"] == "SUCCESS"
        assert "result" not in last["data"]
        assert list(events) == []


def test_counts_of_a_batch_are_reported_until_it_ends(web, outcomes, batch_path):
    with stream(web, f"{batch_path}/events") as events:
        assert next(events)["data"]["request_counts"]["completed"] == 0
        outcomes.score_next_part()
        assert next(events)["data"]["request_counts"]["completed"] == 1
        outcomes.score_next_part()
        outcomes.score_next_part()
        *_, last = events
        assert (last["event"], last["id"]) == ("batch", "completed-3-0")


def test_client_that_comes_back_receives_only_what_is_new(web, http, outcomes, task_id):
    threading.Timer(0.5, outcomes.succeed, (task_id, RESULT)).start()
    with stream(web, f"/score/{task_id}/events", **{"Last-Event-ID": "QUEUED"}) as events:
        assert [event["id"] for event in events][-1] == "SUCCESS"
    response = http.get(f"/score/{task_id}/events", headers={"Last-Event-ID": "SUCCESS"})
    assert response.status_code == 204


def test_stream_of_an_erased_job_ends(web, http, task_id):
    with stream(web, f"/score/{task_id}/events") as events:
        next(events)
        http.delete(f"/score/{task_id}")
        assert list(events) == []
    assert http.get(f"/score/{task_id}/events").status_code == 410


def test_streams_beyond_the_share_of_a_client_are_refused_until_one_ends(two_places):
    with two_places.client() as http:
        path = f"/score/{submit(http)}/events"
        with stream(two_places, path) as events, stream(two_places, path) as others:
            next(events)
            next(others)
            response = http.get(path)
            assert (response.status_code, response.json()["type"]) == (503, "overloaded")
            assert int(response.headers["Retry-After"]) > 0
            assert http.get(path.removesuffix("/events")).status_code == 200
        wait_until(lambda: is_streamed(two_places, path))


def test_what_is_no_stream_needs_no_place(two_places):
    with two_places.client() as http:
        path = f"/score/{submit(http)}/events"
        with stream(two_places, path) as events, stream(two_places, path) as others:
            next(events)
            next(others)
            for nothing in ("/score/x/events", "/batches/x/events"):
                assert http.get(nothing).json()["type"] == "job_not_found"
                assert http.head(nothing).status_code == 404
            response = http.head(path)
            assert response.status_code == 200
            assert response.headers["Content-Type"] == "text/event-stream"


def test_stopping_server_ends_its_streams(web_redis, tmp_path):
    server = WebServer(tmp_path, web_redis.url).start()
    with server.client() as http:
        task_id = submit(http)
    with stream(server, f"/score/{task_id}/events") as events:
        next(events)
        # A stream that went on would be cut off in the middle.
        assert server.stop() == 0
        assert list(events) == []


def is_streamed(web: WebServer, path: str) -> bool:
    with web.client() as client, client.stream("GET", path) as response:
        return response.status_code == 200


class Story:
    """A job that is looked at: each look gives the next state, or raises it."""

    def __init__(self, *looks):
        self.looks = list(looks)

    def look(self):
        found = self.looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return Record("id", found)

    def reply(self, **options):
        @contextmanager
        def hearing():
            yield Inbox()

        watched = Watched("", self.look, "job", lambda r: r.state, lambda r: {"state": r.state})
        return list(
            follow(
                watched,
                hearing(),
                **{"seen": "", "is_over": lambda: False, **options},
            )
        )


def test_comments_keep_a_silent_stream_open():
    reply = Story("QUEUED", "QUEUED", "QUEUED", "SUCCESS").reply(heartbeat_s=0.1)
    assert reply[0] == b"retry: 2000\n\n"
    assert [event.startswith(b":") for event in reply[1:]] == [False, True, True, False]


def test_stream_outlives_a_redis_that_is_away():
    reply = Story("QUEUED", BrokerUnavailable("away"), "SUCCESS").reply()
    assert [event.split()[3] for event in reply[1:]] == [b"QUEUED", b"SUCCESS"]


def test_stream_outlives_a_record_that_cannot_be_read():
    reply = Story("QUEUED", JobUnreadable("broken"), "FAILURE").reply()
    assert [event.split()[3] for event in reply[1:]] == [b"QUEUED", b"FAILURE"]


def test_stream_ends_with_what_it_tells_of():
    assert len(Story("QUEUED", JobGone("gone")).reply()) == 2
