"""`make run`: it says when it is ready, refuses clearly, and ends with all that it started."""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contract.api_keys import new_key
from contract.settings import REPOSITORY
from contract.store.key_store import KeyStore
from deploy.supervisor import SAME_KEY_PRESS_S
from tests.conftest import HANG_S, has_ended, wait_until
from tests.service import TINY_CHECKPOINT, Service

# Between SIGTERM and SIGKILL; much more than a busy machine needs after a second Ctrl-C.
DRAIN_S = 300


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that the tests of this module leave running.

    SIGTERM ends it with exit code 0, and all that it started.
    """
    service = Service(tmp_path_factory.mktemp("running")).start()
    yield service
    processes = service.descendants()
    assert service.stop() == 0
    assert_all_end(processes)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that is not started yet."""
    service = Service(tmp_path)
    yield service
    if service.process is not None and service.process.poll() is None:
        service.stop()


def test_piped_output_is_json_alone(running):
    events = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert "startup_phase" in {event["event"] for event in events}


def test_start_logs_the_probe_once_before_it_is_ready(running):
    events = [json.loads(line) for line in running.log.read_text().splitlines()]
    probes = [event["status"] for event in events if event.get("route") == "/readyz"]
    # On a busy machine the worker may be ready before the first probe, which is not logged then.
    assert probes in ([], [503], [503, 200])


def test_curl_of_the_ready_line_scores_the_text(running):
    (ready,) = (
        event
        for event in map(json.loads, running.log.read_text().splitlines())
        if event["event"] == "service_ready"
    )
    curl = ready["try_command"]
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
    assert '"state":"SUCCESS"' in answer.stdout


def test_redis_has_no_port_and_its_files_are_private(running):
    server = running.part("redis")
    assert not server.net_connections("inet")
    paths = [running.data_dir, *running.data_dir.rglob("*")]
    assert running.data_dir / "redis.sock" in paths
    assert any(path.name.endswith(".aof") for path in paths)
    open_to_others = [
        path for path in paths if not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    assert not open_to_others


def test_no_process_writes_core_dumps(running):
    if sys.platform != "linux":
        pytest.skip("only Linux tells the limits of another process")
    limits = {
        process.name(): resource.prlimit(process.pid, resource.RLIMIT_CORE)
        for process in running.descendants()
    }
    assert len(limits) > 1
    assert set(limits.values()) == {(0, 0)}


@pytest.mark.parametrize("command", ["app.keys", "worker.dead_letters"])
def test_commands_find_the_redis_of_a_running_service(running, command):
    listed = subprocess.run(
        [sys.executable, "-m", command, "list"],
        cwd=REPOSITORY,
        env=running.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", "")


def test_data_folder_with_a_long_path_works_and_becomes_private(service, tmp_path):
    service.data_dir = tmp_path / ("d" * 100)
    service.data_dir.mkdir(mode=0o755)
    service.settings["data_dir"] = service.data_dir
    service.start()
    with service.client() as client:
        assert client.post("/score?wait=30", json={"text": "a"}).json()["state"] == "SUCCESS"
    assert service.data_dir.stat().st_mode & 0o777 == 0o700
    assert not service.part("redis").net_connections("inet")


def test_used_port_is_refused_at_once(running, service):
    service.settings["port"] = running.port
    refused = service.run_to_end()
    assert refused.returncode == 1
    assert f"port {running.port}" in one_line(refused)
    assert not service.data_dir.exists()


def test_data_folder_in_use_is_refused_at_once(running, service):
    service.settings["data_dir"] = running.data_dir
    refused = service.run_to_end()
    assert refused.returncode == 1
    assert str(running.data_dir) in one_line(refused)


def test_data_folder_that_cannot_be_made_is_refused(service, tmp_path):
    (tmp_path / "file").write_text("")
    service.settings["data_dir"] = tmp_path / "file" / "data"
    refused = service.run_to_end()
    assert refused.returncode == 1
    assert "EVASCORE_DATA_DIR" in one_line(refused)


def test_wrong_setting_is_refused_at_once(service):
    service.settings["prot"] = 1
    refused = service.run_to_end()
    assert refused.returncode == 2
    assert "did you mean EVASCORE_PORT?" in one_line(refused)


def test_missing_file_of_keys_is_refused_at_once(service, tmp_path):
    service.settings["keys_file"] = tmp_path / "nothing"
    refused = service.run_to_end()
    assert refused.returncode == 2
    assert "EVASCORE_KEYS_FILE" in one_line(refused)


def test_wrong_checkpoint_is_refused_at_once(service, tmp_path):
    service.settings["model"] = tmp_path / "nothing"
    refused = service.run_to_end()
    assert refused.returncode == 78
    assert "EVASCORE_MODEL" in one_line(refused)
    assert not service.data_dir.exists()


def test_checkpoint_that_the_worker_refuses_ends_everything(service, tmp_path):
    service.settings["model"] = shutil.copytree(service.model, tmp_path / "cut")
    with (tmp_path / "cut" / "model.safetensors").open("r+b") as weights:
        weights.truncate(100)
    refused = service.run_to_end()
    assert refused.returncode == 78
    assert refused.stderr.count("evascore worker: ") == 1
    assert "program_restarted" not in refused.stderr


def test_python_that_is_too_old_is_refused_in_one_line(tmp_path):
    (tmp_path / "python2").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python2").chmod(0o755)
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements.lock", "constraints.txt"):
        (tmp_path / name).touch()
    refused = subprocess.run(
        ["make", "venv", "PYTHON=./python2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode
    assert refused.stderr.startswith("evascore needs Python 3.11 or newer")
    assert not (tmp_path / ".venv").exists()


def test_ctrl_c_ends_make_run_and_all_that_it_started(service):
    service.start(["make", "run"])
    processes = service.descendants()
    assert len(processes) > 4
    service.press_ctrl_c()
    service.process.wait(HANG_S)
    assert_all_end(processes)
    assert "program_killed" not in service.log.read_text()


def test_second_ctrl_c_does_not_wait_for_a_hung_worker(service):
    service.settings["drain_s"] = DRAIN_S
    service.start()
    service.part("worker").suspend()
    service.press_ctrl_c()
    wait_until(lambda: "service_stopping" in service.log.read_text())
    time.sleep(SAME_KEY_PRESS_S)
    service.press_ctrl_c()
    assert service.process.wait(DRAIN_S) == 130


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two devices, whose requests need keys."""
    folder = tmp_path_factory.mktemp("two")
    model = shutil.copytree(TINY_CHECKPOINT, folder / "model")
    service = Service(folder, model, devices="cpu,cpu", auth="keys").start()
    yield service
    assert service.stop() == 0


def test_all_workers_are_waited_for_where_requests_need_keys(two_devices):
    wait_until(lambda: "service_ready" in two_devices.log.read_text(), timeout_s=30)
    with two_devices.client() as client:
        assert client.get("/readyz").json()["ready_workers"] == 2
        assert client.get("/stats").status_code == 401


def test_each_device_has_a_worker_of_its_own(two_devices):
    token, key = new_key("alice", ["admin"])
    with two_devices.redis() as redis:
        KeyStore(redis).add(key)
    with two_devices.client() as client:
        client.headers["Authorization"] = f"Bearer {token}"
        # The web server learns of a new key within seconds.
        wait_until(lambda: client.get("/score/x").status_code != 401)
        workers = client.get("/stats").json()["workers"]
        items = [{"text": "x" * 40}] * 20
        answer = client.post("/score?wait=30", json={"items": items, "priority": "bulk"}).json()
        assert answer["state"] == "SUCCESS"
    names = {worker["name"].partition("@")[0]: worker["state"] for worker in workers}
    assert names == {"worker-0": "ready", "worker-1": "ready"}


def test_worker_that_cannot_restart_leaves_the_others_running(two_devices):
    # A new file: the other worker may read the old one still.
    cut = two_devices.model / "cut"
    cut.write_bytes((two_devices.model / "model.safetensors").read_bytes()[:100])
    cut.replace(two_devices.model / "model.safetensors")
    two_devices.part("worker").kill()
    wait_until(
        lambda: (
            '"exit_code":78' in two_devices.log.read_text()
            or two_devices.process.poll() is not None
        ),
        timeout_s=HANG_S,
    )
    with two_devices.client() as client:
        assert client.get("/readyz").json() == {"status": "ok", "ready_workers": 1}


def test_killed_supervisor_leaves_nothing_running(service):
    service.start()
    processes = service.descendants()
    service.process.kill()
    assert_all_end(processes)


def assert_all_end(processes: list[psutil.Process]) -> None:
    """Fail unless all of them end."""
    wait_until(lambda: all(map(has_ended, processes)))


def one_line(refused: subprocess.CompletedProcess[str]) -> str:
    """All that was written, which must be one line."""
    (line,) = (refused.stdout + refused.stderr).splitlines()
    return line
