"""Metrics, alerts, dashboard and runbook name the same things."""

import json
import re

import pytest
import yaml

from app.responses.problems import STATUS_BY_CODE
from contract import keys
from contract.settings import REPOSITORY, load_settings

MONITORING = REPOSITORY / "deploy/monitoring"
ALERTS = (MONITORING / "alerts.yml").read_text()
DASHBOARD = json.loads((MONITORING / "dashboards/evascore.json").read_text())
RUNBOOK = (REPOSITORY / "docs/runbook.md").read_text()
RULES = yaml.safe_load(ALERTS)["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in RULES]


def metrics_of_the_code() -> set[str]:
    """The names of all metrics, without the endings that Prometheus adds."""
    modules = (REPOSITORY / "app/service/metrics").glob("*.py")
    code = "".join(module.read_text() for module in modules)
    return set(re.findall(r'"(evascore_\w+)"', code))


def metrics_in(text: str) -> set[str]:
    """The names of the metrics in expressions, without these endings."""
    found = re.findall(r"\bevascore_\w+", text)
    return {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in found}


def test_dashboard_draws_every_metric_that_exists_and_no_other():
    drawn = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert metrics_in(" ".join(drawn)) == metrics_of_the_code()


def test_alerts_ask_for_metrics_that_exist():
    asked = metrics_in(" ".join(rule["expr"] for rule in RULES))
    assert len(asked) > 15
    assert asked <= metrics_of_the_code()


def test_problems_that_alerts_count_are_exported_from_the_start_as_0():
    """`increase` and `rate` do not see the first step of a series that did not exist before."""
    found = re.findall(r'evascore_http_problems_total{code=~?"([\w|]+)"}', ALERTS)
    codes = {code for codes in found for code in codes.split("|")}
    seen = {"internal_error", "overloaded", "broker_unavailable", "unauthorized"}
    assert seen <= codes <= set(STATUS_BY_CODE)
    # A series of requests begins with the first request of its method, route and status.
    assert "status" not in " ".join(re.findall(r"evascore_http_requests_total({.*?})", ALERTS))


def test_work_of_no_model_is_not_taken_for_work_of_one_that_is_missing():
    assert f'evascore_waiting_messages{{fingerprint!="{keys.UNBOUND}"}}' in ALERTS


def test_panels_do_not_overlap():
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_alert_has_a_severity_a_description_and_its_entry_in_the_runbook(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    entry = re.search(rf"^## {rule['alert']}\n\n\*(\w+)\.\*", RUNBOOK, re.MULTILINE)
    assert entry
    assert entry[1].lower() == rule["labels"]["severity"]


def test_runbook_has_one_entry_for_each_alert_and_no_other():
    assert len(NAMES) == len(set(NAMES))
    assert sorted(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)) == sorted(NAMES)


def test_every_alert_is_shown_to_fire():
    rules_tests = yaml.safe_load((REPOSITORY / "tests/docker/alerts_test.yml").read_text())["tests"]
    firing = {
        re.search(r'alertname="(\w+)"', sample["labels"])[1]
        for test in rules_tests
        for check in test["promql_expr_test"]
        for sample in check["exp_samples"]
    }
    assert firing == set(NAMES)


def test_metrics_of_the_runbook_and_of_the_api_exist():
    endings = {"evascore_bulk"}
    for text in (RUNBOOK, (REPOSITORY / "docs/api.md").read_text()):
        assert metrics_in(text) - endings <= metrics_of_the_code()


def test_commands_of_the_runbook_are_allowed_to_the_user_of_the_containers(redis_client):
    start = (REPOSITORY / "deploy/redis/start.sh").read_text()
    rights = re.search(r"^user evascore on #\$hash (.*)$", start, re.MULTILINE)[1]
    redis_client.execute_command("ACL", "SETUSER", "evascore", *rights.split())
    known = redis_client.command()
    words = [found.split() for found in re.findall(r"`([A-Z]+(?: \w+)*)`", RUNBOOK)]
    commands = [each for each in words if each[0].lower() in known]
    assert ["INFO", "persistence"] in commands
    for command in commands:
        allowed = redis_client.execute_command("ACL", "DRYRUN", "evascore", *command)
        assert allowed in (b"OK", "OK"), command


def test_runbook_names_what_keda_asks():
    objects = yaml.safe_load_all(
        (REPOSITORY / "deploy/kubernetes/components/keda/scaled-object.yaml").read_text()
    )
    triggers = next(objects)["spec"]["triggers"]
    (asked,) = re.findall(r"scaler reaches (\w+)", RUNBOOK)
    assert {trigger["type"] for trigger in triggers} == {asked.lower()}


def threshold(metric: str) -> int:
    """The value of a metric above which an alert fires."""
    return int(re.search(rf"\({metric}\) > (\d+)", ALERTS)[1])


def test_alerts_of_full_queues_are_at_a_share_of_their_limits():
    settings = load_settings({})
    assert threshold("evascore_queue_bytes") == settings.max_queued_bytes / 2
    assert threshold("evascore_bulk_bytes") == settings.max_bulk_bytes * 3 / 4
    # One upload of the largest size is no reason to add a worker.
    assert threshold("evascore_bulk_bytes") > settings.max_upload_bytes


def test_hung_worker_is_seen_before_it_ends_itself():
    timeout_s = load_settings({}).micro_batch_timeout_s
    four_scrapes_s = 4 * 15
    assert threshold("evascore_stalled_seconds") + four_scrapes_s <= timeout_s
    assert threshold("evascore_worker_silent_seconds") + four_scrapes_s <= timeout_s
