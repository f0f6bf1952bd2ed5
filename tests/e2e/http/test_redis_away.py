"""Redis killed, frozen or refusing writes: a clear 503 within one time-out, and all well after."""

import concurrent.futures
import contextlib
import http.client
import re
import signal
import threading
import time

import httpx
import pytest
import redis

from contract import keys
from contract.store.connection.broker_guard import MAX_CALLS, PAUSE_S
from tests.conftest import wait_until
from tests.proxy import Proxy
from tests.web import Outcomes, WebServer

NEEDS_REDIS = [
    ("POST", "/score"),
    ("POST", "/score?wait=20"),
    ("GET", "/score/{id}"),
    ("GET", "/score/{id}?wait=20"),
    ("POST", "/score/{id}/cancel"),
    ("DELETE", "/score/{id}"),
    ("GET", "/info"),
    ("GET", "/stats"),
    ("GET", "/readyz"),
]
REDIS_TIMEOUT_S = 5
# On a busy machine too. Two time-outs in a row would take longer.
PROMPT_S = 9
# 1 s of silence, a time-out for the answer to a PING, and a busy machine. Waits of 30 s end by
# themselves.
DEAD_CONNECTION_S = 15
# On a busy machine, requests come for longer than a time-out, and one after another tries Redis.
NUM_TRIALS = 30


@pytest.fixture
def server(redis_server, tmp_path, request):
    """A web server; its `redis_timeout_s` may be a parameter."""
    times = {"redis_timeout_s": getattr(request, "param", REDIS_TIMEOUT_S), "max_wait_s": 60}
    server = WebServer(tmp_path, redis_server.url, **times).start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture
def task_id(client):
    return client.post("/score", json={"text": "hello"}).json()["id"]


def timed(client, method: str, path: str) -> tuple[httpx.Response, float]:
    began_at = time.monotonic()
    content = {"json": {"text": "hello"}} if path.startswith("/score?") or path == "/score" else {}
    response = client.request(method, path, **content)
    return response, time.monotonic() - began_at


def assert_unavailable(client, method: str, path: str) -> None:
    response, elapsed_s = timed(client, method, path)
    assert (response.status_code, response.json()["type"]) == (503, "broker_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    assert elapsed_s < PROMPT_S


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_every_route_that_needs_redis_answers_503_promptly(client, redis_server, task_id, how):
    redis_server.process.send_signal(how)
    try:
        for method, path in NEEDS_REDIS:
            assert_unavailable(client, method, path.format(id=task_id))
        assert timed(client, "GET", "/healthz")[0].status_code == 200
    finally:
        redis_server.process.send_signal(signal.SIGCONT)


def test_status_page_says_promptly_that_redis_is_away(client, redis_server):
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        response, elapsed_s = timed(client, "GET", "/status")
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    assert (response.status_code, elapsed_s < PROMPT_S) == (503, True)
    assert "Redis does not answer" in response.text
    # Zeros would be figures that nobody has read.
    assert re.findall(r'of-stats"[^>]*>', response.text)
    assert all(tag.endswith(" hidden>") for tag in re.findall(r'of-stats"[^>]*>', response.text))
    assert int(response.headers["Retry-After"]) >= 1


# Less than MAX_TURN_S, so that without a breaker most that wait for a turn would time out too.
@pytest.mark.parametrize("server", [1.5], indirect=True)
def test_many_requests_at_once_to_a_frozen_redis_wait_for_one_time_out(
    server, redis_server, task_id
):
    def timed_answer(method: str, path: str) -> tuple[int, float, bytes]:
        # httpx in 180 threads would take longer than what is measured.
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with contextlib.closing(connection):
            began_at = time.monotonic()
            headers = {"Content-Type": "application/json"}
            connection.request(method, path.format(id=task_id), b'{"text": "hello"}', headers)
            answer = connection.getresponse()
            return answer.status, time.monotonic() - began_at, answer.read()

    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            calls = [pool.submit(timed_answer, *call) for call in NEEDS_REDIS * 20]
            answers = [call.result() for call in calls]
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    assert {status for status, _, _ in answers} == {503}
    assert max(elapsed_s for _, elapsed_s, _ in answers) < PROMPT_S
    # Those that had a turn, and a few that tried later, one after another. A count is
    # the same on a busy machine; a time is not.
    num_timed_out = sum(b"(TimeoutError)" in body for _, _, body in answers)
    assert 0 < num_timed_out < MAX_CALLS + NUM_TRIALS
    wait_until(lambda: timed_answer("POST", "/score")[0] == 202)


def test_waiting_survives_a_restart_of_redis(server, redis_server, client, task_id):
    answers: list[httpx.Response] = []
    path = f"/score/{task_id}?wait=60"
    waiting = threading.Thread(target=lambda: answers.append(client.get(path)))
    waiting.start()
    wait_until(lambda: server.num_open("wait") == 1)
    redis_server.kill()
    redis_server.start()
    outcomes = Outcomes(server)
    outcomes.succeed(task_id, {"num_bytes": 5})
    ended_at = time.monotonic()
    waiting.join()
    outcomes.client.close()
    # Long before the 60 s that it asked for, on a busy machine too.
    assert time.monotonic() - ended_at < 15
    assert answers[0].json()["state"] == "SUCCESS"


def test_accepted_job_keeps_its_id_when_redis_goes_while_it_waits(server, redis_server, client):
    def kill_once_it_waits() -> None:
        # It waits only once its job is accepted.
        wait_until(lambda: server.num_open("wait") == 1)
        redis_server.kill()

    killing = threading.Thread(target=kill_once_it_waits)
    killing.start()
    response = client.post("/score", json={"text": "hello"}, params={"wait": "10"})
    killing.join()
    assert response.status_code == 202
    redis_server.start()
    assert client.get(response.headers["Location"]).json()["state"] == "QUEUED"


@pytest.mark.parametrize(
    "refusal", [{"maxmemory": "1"}, {"min-replicas-to-write": "1"}], ids=["full", "no-replica"]
)
def test_redis_that_refuses_writes_still_serves_reads(server, client, task_id, refusal):
    outcomes = Outcomes(server)
    outcomes.client.config_set(*refusal.popitem())
    outcomes.client.close()
    assert_unavailable(client, "POST", "/score")
    assert client.get(f"/score/{task_id}").status_code == 200


def test_server_starts_without_redis_and_serves_when_it_comes(redis_server, tmp_path):
    redis_server.kill()
    server = WebServer(tmp_path, redis_server.url, redis_timeout_s=REDIS_TIMEOUT_S).start()
    try:
        with server.client() as client:
            assert_unavailable(client, "POST", "/score")
            redis_server.start()
            assert timed(client, "POST", "/score?wait=0.1")[0].status_code == 202
    finally:
        server.stop()


def test_log_says_once_that_redis_is_away_and_what_to_check(server, redis_server):
    for outages in (1, 2):
        redis_server.kill()
        wait_until(lambda outages=outages: len(server.log_lines("redis_away")) == outages)
        # Several more tries fail.
        time.sleep(1)
        redis_server.start()
        with redis.Redis.from_url(redis_server.url) as back:
            wait_until(back.pubsub_numpat)
    lines = server.log_lines("redis_away")
    assert [line["check"].partition(",")[0] for line in lines] == ["EVASCORE_REDIS_URL"] * 2


def test_waits_survive_a_silently_dead_connection(redis_server, tmp_path):
    proxy = Proxy(redis_server.port)
    server = WebServer(tmp_path, proxy.url, redis_timeout_s=REDIS_TIMEOUT_S).start()
    outcomes = Outcomes(server)
    with server.client() as client, concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [pool.submit(client.post, "/score?wait=30", json={"text": "a"}) for _ in range(3)]
        wait_until(lambda: outcomes.store.depth().jobs == 3)
        assert proxy.swallow(b"SUBSCRIBE") == 1
        began_at = time.monotonic()
        for task_id in outcomes.client.hkeys(keys.LIVE_JOBS):
            outcomes.succeed(task_id.decode(), {})
        assert {each.result().status_code for each in waiting} == {200}
        assert time.monotonic() - began_at < DEAD_CONNECTION_S
        # A wait that begins on the new connection hears of the end at once.
        wait = pool.submit(timed, client, "POST", "/score?wait=30")
        (task_id,) = wait_until(lambda: outcomes.client.hkeys(keys.LIVE_JOBS))
        outcomes.succeed(task_id.decode(), {})
        response, elapsed_s = wait.result()
        assert response.status_code == 200
        assert elapsed_s < DEAD_CONNECTION_S
    outcomes.client.close()
    assert server.stop() == 0
    proxy.close()


def test_silently_dead_connections_cost_one_request(redis_server, tmp_path):
    proxy = Proxy(redis_server.port)
    server = WebServer(tmp_path, proxy.url, redis_timeout_s=REDIS_TIMEOUT_S).start()
    with server.client() as client, concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(client.post, "/score", json={"text": "a"}) for _ in range(60)]
        assert {each.result().status_code for each in asked} == {202}
        assert proxy.swallow(b"EVAL") > 1
        assert_unavailable(client, "POST", "/score")
        time.sleep(PAUSE_S)
        assert client.post("/score", json={"text": "a"}).status_code == 202
        # Together they need as many connections as before.
        asked = [pool.submit(client.post, "/score", json={"text": "a"}) for _ in range(60)]
        assert {each.result().status_code for each in asked} == {202}
    assert server.stop() == 0
    proxy.close()


def test_new_server_reads_results_while_redis_takes_no_writes(
    server, client, task_id, redis_server, redis_client, tmp_path
):
    outcomes = Outcomes(server)
    outcomes.succeed(task_id, {})
    outcomes.client.close()
    redis_client.config_set("min-replicas-to-write", 1)
    folder = tmp_path / "new"
    folder.mkdir()
    new = WebServer(folder, redis_server.url).start()
    with new.client() as reader:
        assert reader.get(f"/score/{task_id}").json()["state"] == "SUCCESS"
        assert reader.get("/score/unknown").status_code == 404
        assert_unavailable(reader, "POST", "/score")
    assert new.stop() == 0
    redis_client.config_set("min-replicas-to-write", 0)
    assert client.post("/score", json={"text": "a"}).status_code == 202


def test_log_names_the_right_that_the_user_of_redis_lacks(server, client, redis_client):
    redis_client.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        assert "evascore_redis_up 0.0" in client.get("/metrics").text
    finally:
        redis_client.execute_command("ACL", "SETUSER", "default", "+info")
    (line,) = wait_until(lambda: server.log_lines("redis_not_read"))
    assert "NoPermissionError" in line["error"]
    assert "info" in line["cause"]


def test_log_names_the_refused_connection(server, client, redis_server):
    redis_server.kill()
    assert "evascore_redis_up 0.0" in client.get("/metrics").text
    (line,) = wait_until(lambda: server.log_lines("redis_not_read"))
    assert "refused" in line["cause"] or "closed" in line["cause"]
