"""Writes the alert rules for Prometheus's operator on Kubernetes from deploy/monitoring/alerts.yml.

`make sync-alerts` runs it, after a change of the alerts.
"""

import re
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ALERTS = REPOSITORY / "deploy/monitoring/alerts.yml"
TARGET = REPOSITORY / "deploy/kubernetes/components/monitoring/prometheus-rule.yaml"
HEADER = """\
# The alerts of deploy/monitoring/alerts.yml; `make sync-alerts` writes this file.
# docs/runbook.md says what to do about each. Needs the Prometheus operator in the cluster.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: evascore
spec:
"""
# A worker that KEDA asks for may need a new node first, which takes minutes.
NO_WORKER_FOR = "10m"
_NO_WORKER = re.compile(r"(- alert: NoWorker\n(?:(?! +- alert:).*\n)*? +for: )\w+")


def prometheus_rule(alerts: str) -> str:
    """The manifest with the rules of `alerts`, the text of a file of Prometheus's rules."""
    groups = alerts[alerts.index("groups:\n") :]
    return HEADER + textwrap.indent(_NO_WORKER.sub(rf"\g<1>{NO_WORKER_FOR}", groups), "  ")


if __name__ == "__main__":
    TARGET.write_text(prometheus_rule(ALERTS.read_text()))
