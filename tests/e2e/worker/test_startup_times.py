"""What a start took, phase by phase: in the log of the worker, in `/stats` and in `/metrics`."""

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract import __version__

# In order, of a model that is not quantized, on a CPU.
PHASES = ["import", "redis", "download", "checksum", "load", "canary", "warm_up", "consume"]


@pytest.fixture
def logged(scoring) -> dict[str, object]:
    """The line that says that the worker is ready."""
    lines = scoring.log.read_text().splitlines()
    return next(orjson.loads(line) for line in lines if '"worker_ready"' in line)


def test_ready_worker_logs_every_phase_and_their_sum(logged):
    assert list(logged["phases_s"]) == PHASES
    assert logged["startup_s"] == pytest.approx(sum(logged["phases_s"].values()), abs=0.01)
    assert all(seconds >= 0 for seconds in logged["phases_s"].values())
    # Python alone takes longer than that to import PyTorch.
    assert logged["phases_s"]["import"] > 0.2


def test_log_names_the_device_that_the_model_was_loaded_on(scoring):
    lines = scoring.log.read_text().splitlines()
    (loaded,) = (orjson.loads(line) for line in lines if '"model_loaded"' in line)
    with scoring.client() as http:
        assert loaded["device"] == http.get("/info").json()["model"]["device"]


def test_stats_name_the_release_of_the_worker(scoring):
    with scoring.client() as http:
        assert [each["release"] for each in http.get("/stats").json()["workers"]] == [__version__]


def test_stats_and_metrics_tell_what_is_logged(scoring, logged):
    with scoring.client() as http:
        [worker] = http.get("/stats").json()["workers"]
        metrics = text_string_to_metric_families(http.get("/metrics").text)
    assert worker["startup"] == {"phase": None, "seconds": logged["phases_s"]}
    [family] = (f for f in metrics if f.name == "evascore_startup_seconds")
    assert {s.labels["phase"]: s.value for s in family.samples} == logged["phases_s"]
    assert {s.labels["worker"] for s in family.samples} == {worker["name"]}
