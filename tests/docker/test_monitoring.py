"""The profile `monitoring`: Prometheus reads the service, and its alerts and our dashboard work."""

import json
import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import yaml

from contract.settings import REPOSITORY
from tests.conftest import wait_until
from tests.docker.conftest import Stack, output

MONITORING = REPOSITORY / "deploy/monitoring"
DASHBOARD = json.loads((MONITORING / "dashboards/evascore.json").read_text())
# The stack has no GPU, and its first backup comes after half an hour.
ABSENT = ("evascore_gpu_", "evascore_last_backup_")
EXPRESSIONS = [
    target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
    if not any(name in target["expr"] for name in ABSENT)
]
# Some scrapes, 15 s apart.
SCRAPES_S = 120
# Prometheus publishes no port; a container beside it asks.
ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"


class Prometheus:
    """What its own API tells."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def get(self, path: str, **query: str) -> Any:
        """What lies under `path`."""
        url = f"http://prometheus:9090/api/v1/{path}?{urlencode(query)}"
        answer = json.loads(self.stack.run_in("web", "python", "-c", ASK, url))
        assert answer["status"] == "success"
        return answer["data"]

    def shows(self, expression: str) -> bool:
        """Whether an expression has a value now."""
        found = self.get("query", query=expression)["result"]
        return any(not math.isnan(float(sample["value"][1])) for sample in found)

    def alerts(self) -> set[str]:
        """The names of the alerts whose expression is true, for however short a time."""
        return {alert["labels"]["alertname"] for alert in self.get("alerts")["alerts"]}


@pytest.fixture(scope="module")
def prometheus(stack) -> Iterator[Prometheus]:
    """Prometheus beside the service."""
    with stack.profile("monitoring", "prometheus"):
        yield Prometheus(stack)


def test_web_server_is_scraped(prometheus):
    (target,) = wait_until(lambda: prometheus.get("targets")["activeTargets"], SCRAPES_S, 1)
    assert target["labels"]["job"] == "evascore"
    wait_until(lambda: prometheus.shows('up{job="evascore"} == 1'), SCRAPES_S, 1)


def test_every_rule_is_loaded_and_evaluated(prometheus):
    written = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    wait_until(lambda: _health_of_rules(prometheus) == {"ok"}, SCRAPES_S, 1)
    (group,) = prometheus.get("rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in written]


def _health_of_rules(prometheus: Prometheus) -> set[str]:
    return {
        rule["health"] for group in prometheus.get("rules")["groups"] for rule in group["rules"]
    }


def test_every_expression_of_the_dashboard_shows_something(prometheus, stack):
    missing = set(EXPRESSIONS)

    def is_complete() -> bool:
        stack.submit()
        missing.difference_update(filter(prometheus.shows, list(missing)))
        return not missing

    wait_until(is_complete, SCRAPES_S, 2)


def test_service_that_scores_raises_no_alert(prometheus):
    # Until the first scrape nobody knows of a web server.
    wait_until(lambda: not prometheus.alerts(), SCRAPES_S, 1)


def test_worker_that_is_gone_raises_an_alert(prometheus, stack):
    stack.compose("stop", "worker")
    try:
        wait_until(lambda: "NoWarmWorker" in prometheus.alerts(), SCRAPES_S, 1)
    finally:
        stack.up("worker")
    wait_until(lambda: not prometheus.alerts(), SCRAPES_S, 1)


def test_each_alert_fires_when_it_should(prometheus, stack):
    # By Prometheus's own tool, which has no need to wait for the minutes of `for`.
    files = {"alerts.yml": MONITORING, "alerts_test.yml": REPOSITORY / "tests/docker"}
    mounts = [
        word for name, folder in files.items() for word in ("-v", f"{folder / name}:/t/{name}:ro")
    ]
    image = stack.image("prometheus")
    told = output(
        *("docker", "run", "--rm", "--entrypoint", "promtool", *mounts, image),
        *("test", "rules", "/t/alerts_test.yml"),
    )
    assert "SUCCESS" in told


def test_dashboard_is_in_grafana(prometheus, stack):
    with stack.profile("monitoring", "grafana"):
        response = httpx.get(f"http://127.0.0.1:{stack.grafana_port}/api/dashboards/uid/evascore")
    assert response.status_code == 200
    assert len(response.json()["dashboard"]["panels"]) == len(DASHBOARD["panels"])
