"""The Kubernetes manifests: valid by Kubernetes' own schemas, and agreed with settings and keys."""

import copy
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from contract import keys
from contract.setting_refusals import PREFIX
from contract.settings import REPOSITORY, load_settings
from deploy.prometheus_rule import ALERTS, NO_WORKER_FOR, TARGET, prometheus_rule

FOLDER = REPOSITORY / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.37")
# Kinds that operators bring: their schemas are not among Kubernetes' own.
CUSTOM = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PrometheusRule"}
# A spot node of GKE ends its pods after this.
SPOT_S = 15

Manifest = dict[str, Any]


def written() -> list[Manifest]:
    """All manifests as they stand in the files."""
    files = [path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml"]
    assert files
    return [manifest for path in files for manifest in yaml.safe_load_all(path.read_text())]


@functools.cache
def rendered(target: str) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(FOLDER / target)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return list(yaml.safe_load_all(ended.stdout))


def only(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one manifest of that kind and name."""
    (found,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def pod(manifest: Manifest) -> Manifest:
    return manifest["spec"]["template"]["spec"]


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["kind"] in ("Deployment", "StatefulSet")]


BASE = written()
TARGETS = ["base", "overlays/gke-spot"]


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid_in_old_and_new_kubernetes(version):
    for manifest in BASE:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_rendered_is_valid(target):
    for manifest in rendered(target):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "evascore"


def with_external_redis(folder: Path, *components: str) -> list[Manifest]:
    """The base, and components before the one that brings a Redis of one's own."""
    base = folder / "kubernetes"
    shutil.copytree(FOLDER, base)
    overlay = base / "overlays" / "external"
    overlay.mkdir()
    named = [f"../../components/{name}" for name in (*components, "external-redis")]
    kustomization = {"resources": ["../../base"], "components": named}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return rendered(str(overlay))


def test_external_redis_takes_the_place_of_ours(tmp_path):
    manifests = with_external_redis(tmp_path)
    assert not [m for m in manifests if m["metadata"]["name"] == "redis"]
    settings = only(manifests, "ConfigMap", "evascore-settings")["data"]
    assert settings["EVASCORE_REDIS_URL"].startswith("rediss://")


def test_workers_are_scaled_by_the_redis_that_takes_the_place_of_ours(tmp_path):
    manifests = with_external_redis(tmp_path, "keda")
    url = only(manifests, "ConfigMap", "evascore-settings")["data"]["EVASCORE_REDIS_URL"]
    for trigger in only(manifests, "ScaledObject", "worker")["spec"]["triggers"]:
        assert f"@{trigger['metadata']['address']}/" in url
        assert trigger["metadata"]["enableTLS"] == "true"


@pytest.mark.parametrize("target", TARGETS)
def test_settings_exist_and_fit_together(target):
    manifests = rendered(target)
    settings = only(manifests, "ConfigMap", "evascore-settings")["data"]
    for name in ("web", "worker"):
        container = pod(only(manifests, "Deployment", name))["containers"][0]
        own = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        # The secret is mounted in the pod alone.
        variables = {**settings, **own}
        assert variables.pop("EVASCORE_REDIS_PASSWORD_FILE") == "/run/evascore/password"
        load_settings(variables)
        assert all(variable.startswith(PREFIX) for variable in variables)


@pytest.mark.parametrize("target", TARGETS)
def test_pods_may_take_longer_to_end_than_they_drain(target):
    manifests = rendered(target)
    drain_s = float(only(manifests, "ConfigMap", "evascore-settings")["data"]["EVASCORE_DRAIN_S"])
    settings = load_settings({"EVASCORE_DRAIN_S": str(drain_s)})
    # The watch on the drain looks four times per lease; then the process ends.
    drained_s = settings.drain_s + settings.lease_s / 4 + 2
    worker, web = (pod(only(manifests, "Deployment", name)) for name in ("worker", "web"))
    assert worker["terminationGracePeriodSeconds"] >= drained_s
    wait_s = float(web["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert web["terminationGracePeriodSeconds"] >= wait_s + int(settings.drain_s) + 5
    if "spot" in target:
        assert worker["terminationGracePeriodSeconds"] <= SPOT_S


# A new web pod is ready before an old one leaves. A new worker needs the GPU of an old one.
@pytest.mark.parametrize(("name", "num_more", "num_fewer"), [("web", 1, 0), ("worker", 0, 1)])
@pytest.mark.parametrize("target", TARGETS)
def test_pods_are_replaced_one_after_the_other(target, name, num_more, num_fewer):
    spec = only(rendered(target), "Deployment", name)["spec"]
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": num_more, "maxUnavailable": num_fewer},
    }
    (container,) = spec["template"]["spec"]["containers"]
    assert "readinessProbe" in container
    # `kubectl rollout undo` needs the revision before.
    assert spec.get("revisionHistoryLimit", 10) > 0


def test_upgrade_changes_the_images_and_nothing_else(tmp_path):
    overlay = "overlays/gke-spot"
    folder = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, folder)
    path = folder / overlay / "kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text())
    for image in kustomization["images"]:
        # As `kustomize edit set image` does.
        image["newTag"] = "99.0.0"
    path.write_text(yaml.safe_dump(kustomization))
    before, after = rendered(overlay), rendered(str(folder / overlay))
    changed = {
        old["metadata"]["name"]: new for old, new in zip(before, after, strict=True) if old != new
    }
    assert sorted(changed) == ["redis", "web", "worker"]
    for workload in workloads(before):
        spec = copy.deepcopy(workload)
        for container in pod(spec)["containers"]:
            container["image"] = container["image"].rpartition(":")[0] + ":99.0.0"
        assert spec == changed[workload["metadata"]["name"]]


@pytest.mark.parametrize("target", TARGETS)
def test_fields_that_no_update_may_change_are_those_of_the_first_release(target):
    manifests = rendered(target)
    for workload in workloads(manifests):
        labels = {"app.kubernetes.io/name": workload["metadata"]["name"]}
        assert workload["spec"]["selector"] == {"matchLabels": labels}
    redis = only(manifests, "StatefulSet", "redis")["spec"]
    assert redis["serviceName"] == "redis"
    (claim,) = redis["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"
    size = {"requests": {"storage": "10Gi"}}
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": size}
    assert only(manifests, "Service", "redis")["spec"]["clusterIP"] == "None"


def test_workers_are_scaled_by_the_jobs_and_batches_that_have_not_ended():
    triggers = only(BASE, "ScaledObject", "worker")["spec"]["triggers"]
    counted = [trigger["metadata"]["listName"] for trigger in triggers]
    assert counted == [keys.LIVE_JOBS, keys.LIVE_BATCHES]
    service = only(BASE, "Service", "redis")["metadata"]["name"]
    namespace = only(BASE, "Namespace", "evascore")["metadata"]["name"]
    address = f"{service}.{namespace}.svc.cluster.local:6379"
    for trigger in triggers:
        # KEDA takes strings alone.
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert trigger["metadata"]["address"] == address
    url = only(BASE, "ConfigMap", "evascore-settings")["data"]["EVASCORE_REDIS_URL"]
    assert url == f"redis://evascore@{address}/0"


def test_workers_may_vanish_and_their_number_is_left_to_keda():
    assert only(BASE, "ScaledObject", "worker")["spec"]["minReplicaCount"] == 0
    scaled = rendered("overlays/gke-spot")
    assert "replicas" not in only(scaled, "Deployment", "worker")["spec"]
    assert "replicas" not in only(scaled, "Deployment", "web")["spec"]


def test_web_pods_take_requests_while_no_worker_runs():
    (container,) = pod(only(BASE, "Deployment", "web"))["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_worker_has_one_gpu_and_uses_nothing_else():
    (container,) = pod(only(BASE, "Deployment", "worker"))["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["env"] == [{"name": "EVASCORE_DEVICE", "value": "cuda"}]


@pytest.mark.parametrize("workload", workloads(BASE), ids=lambda m: m["metadata"]["name"])
def test_pods_run_without_rights_and_without_a_token(workload):
    spec = pod(workload)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"]


def test_redis_is_asked_as_its_image_asks_it():
    (container,) = pod(only(BASE, "StatefulSet", "redis"))["containers"]
    question = container["readinessProbe"]["exec"]["command"][-1]
    assert question in (REPOSITORY / "deploy" / "redis" / "Dockerfile").read_text()


def test_worker_is_asked_as_its_image_asks_it():
    (container,) = pod(only(BASE, "Deployment", "worker"))["containers"]
    dockerfile = (REPOSITORY / "Dockerfile.worker").read_text()
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", dockerfile, re.MULTILINE)
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"] == json.loads(check)


def test_selectors_find_the_pods_they_mean():
    labels = [m["spec"]["template"]["metadata"]["labels"] for m in workloads(BASE)]
    for manifest in BASE:
        spec = manifest.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        wanted = selector.get("matchLabels", selector)
        if wanted:
            assert [found for found in labels if wanted.items() <= found.items()], manifest


def test_manifests_hold_no_secret():
    assert not [manifest for manifest in BASE if manifest["kind"] == "Secret"]


def test_web_reads_api_keys_from_the_secret_that_the_settings_name():
    web = pod(only(written(), "Deployment", "web"))
    (container,) = web["containers"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "api-keys")
    (volume,) = (each for each in web["volumes"] if each["name"] == "api-keys")
    assert volume["secret"] == {
        "secretName": "evascore-keys",
        "defaultMode": 0o440,
        "optional": True,
    }
    offered = re.search(
        r"# (EVASCORE_KEYS_FILE): (.*)", (FOLDER / "base/settings.yaml").read_text()
    )
    assert offered[2] == f"{mount['mountPath']}/keys"
    document = (REPOSITORY / "docs/kubernetes.md").read_text()
    assert f"{offered[1]}: {offered[2]}" in document
    assert f"secret generic {volume['secret']['secretName']} --from-file=keys" in document


def test_rules_of_the_cluster_are_those_of_prometheus():
    assert TARGET.read_text() == prometheus_rule(ALERTS.read_text()), "run make sync-alerts"
    rules = only(rendered("overlays/gke-spot"), "PrometheusRule", "evascore")["spec"]["groups"]
    alerts = yaml.safe_load(ALERTS.read_text())["groups"]
    # Only the alert of a missing worker waits longer: a new one may need a node first.
    (changed,) = (rule for rule in alerts[0]["rules"] if rule["alert"] == "NoWorker")
    assert changed["for"] != NO_WORKER_FOR
    changed["for"] = NO_WORKER_FOR
    assert rules == alerts


def test_metrics_of_the_cluster_have_the_job_that_alerts_ask_for():
    manifests = rendered("overlays/gke-spot")
    monitor = only(manifests, "ServiceMonitor", "evascore")["spec"]
    (service,) = (
        manifest
        for manifest in manifests
        if manifest["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= manifest["metadata"]["labels"].items()
    )
    jobs = set(re.findall(r'job="(\w+)"', ALERTS.read_text()))
    assert jobs == {service["metadata"]["labels"][monitor["jobLabel"]]}
