"""Redis that goes in the middle of a request: 503 whichever of its commands meets it first."""

import pytest
import redis

from app.factory import create_app
from contract import keys
from contract.settings import load_settings
from contract.store.connection.broker import connect

GOING = [
    ("GET", "/info"),
    ("GET", "/stats"),
    ("GET", "/status"),
    ("POST", "/score"),
    ("GET", "/score/{id}"),
    ("POST", "/score/{id}/cancel"),
    ("DELETE", "/score/{id}"),
    ("POST", "/batches"),
]


class GoingPool(redis.ConnectionPool):
    """Connections to a Redis that is gone after so many round trips."""

    trips_left: int | None = None

    def get_connection(self, *args, **kwargs):
        if self.trips_left is not None:
            if self.trips_left == 0:
                raise redis.ConnectionError("gone")
            self.trips_left -= 1
        return super().get_connection(*args, **kwargs)


@pytest.fixture
def pool(redis_server):
    pool = GoingPool.from_url(redis_server.url)
    yield pool
    pool.disconnect()


@pytest.fixture
def http(redis_server, pool, monkeypatch):
    settings = load_settings({"EVASCORE_REDIS_URL": redis_server.url})
    monkeypatch.setattr("app.factory.connect", lambda _: redis.Redis(connection_pool=pool))
    app = create_app(settings)
    yield app.test_client()
    app.extensions["evascore"].changes.close()


def send(http, method: str, path: str, task_id: str = ""):
    if method == "POST" and path == "/batches":
        return http.post(path, data=b'{"text": "ab"}\n', content_type="application/x-ndjson")
    body = {"json": {"text": "ab"}} if (method, path) == ("POST", "/score") else {}
    return http.open(path.format(id=task_id), method=method, **body)


def submitted(http) -> str:
    return send(http, "POST", "/score").json["id"]


def test_ready_answers_503_where_redis_goes_between_its_two_questions(http, pool):
    pool.trips_left = 1
    response = send(http, "GET", "/readyz")
    assert (response.status_code, response.json["type"]) == (503, "broker_unavailable")
    assert pool.trips_left == 0


@pytest.mark.parametrize(("method", "path"), GOING)
def test_redis_may_go_before_any_command_of_a_request(http, pool, method, path):
    statuses = []
    for trips in range(30):
        pool.trips_left = None
        task_id = submitted(http)
        pool.trips_left = trips
        statuses.append(send(http, method, path, task_id).status_code)
        if pool.trips_left > 0:
            break
    # What comes late, such as an estimate of Retry-After, may fail without harm.
    assert statuses[0] == 503
    assert statuses[-1] < 300
    assert set(statuses) == {503, statuses[-1]}


def test_lease_that_is_no_status_breaks_no_route(http, redis_server):
    with connect(load_settings({"EVASCORE_REDIS_URL": redis_server.url})) as client:
        client.sadd(keys.WORKERS, "w")
        client.set(keys.lease("w"), b"held by something else")
    for path in ("/info", "/stats", "/status", "/metrics"):
        assert send(http, "GET", path).status_code == 200
    assert send(http, "GET", "/readyz").json["type"] == "worker_unavailable"
