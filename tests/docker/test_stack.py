"""The service on a real engine: it scores, survives crashes and restarts, scales, keeps its rules.

The tests run in order on one service; each leaves it healthy.
"""

import pytest

from tests.docker.conftest import answered_score, inspect, output, readme_curl

SERVICES = ("redis", "web", "worker")


def test_curl_of_the_readme_scores_the_text(stack):
    curl, shown = readme_curl()
    answer = output("bash", "-c", curl.replace("localhost:8000", f"127.0.0.1:{stack.port}"))
    assert answered_score(answer) == pytest.approx(shown, rel=1e-4)


@pytest.mark.parametrize("service", SERVICES)
def test_crash_is_recovered_and_nothing_is_lost(stack, service):
    before = stack.submit(wait_s=0)["id"]
    stack.crash(service)
    assert stack.read(before)["state"] == "SUCCESS"
    assert stack.submit()["state"] == "SUCCESS"


def test_task_ids_answer_after_down_and_up(stack):
    ended = stack.submit()["id"]
    stack.compose("stop", "worker")
    waiting = [stack.submit(wait_s=0)["id"] for _ in range(5)]
    stack.compose("down", "--timeout", "30")
    stack.up()
    assert {stack.read(task_id)["state"] for task_id in (ended, *waiting)} == {"SUCCESS"}


def test_two_workers_have_names_of_their_own(stack):
    stack.up("--scale", "worker=2")
    with stack.client() as client:
        names = {worker["name"] for worker in client.get("/stats").json()["workers"]}
    assert len(names) == 2
    stack.up("--scale", "worker=1")
    assert stack.submit()["state"] == "SUCCESS"


@pytest.mark.parametrize("service", SERVICES)
def test_container_writes_nowhere_but_its_volumes(stack, service):
    touch = ("sh", "-c", "touch /srv/x /usr/x /etc/x 2>&1 || true")
    refused = output("docker", "exec", "--user", "0", stack.container(service), *touch)
    assert refused.count("Read-only file system") == 3


def test_redis_serves_nobody_without_the_password(stack):
    assert "NOAUTH" in stack.run_in("redis", "redis-cli", "ping")
    probe = ("redis-cli", "--no-auth-warning", "--user", "probe", "--pass", "-")
    assert stack.run_in("redis", *probe, "ping").strip() == "PONG"
    assert "NOPERM" in stack.run_in("redis", *probe, "info")


def test_redis_loads_all_of_its_file(stack):
    stack.crash("redis")
    assert "CRITICAL" not in stack.logs("redis")


def test_password_is_in_no_environment_and_no_command(stack):
    password = stack.run_in("redis", "cat", "/var/lib/evascore/redis_password")
    assert len(password) == 64
    for service in SERVICES:
        container = stack.container(service)
        assert password not in str(inspect(container))
        assert password not in output("docker", "top", container, "-o", "pid,args")
        assert password not in stack.logs(service)
