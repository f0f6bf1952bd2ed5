"""`deploy/slurm/`: what is submitted, and a worker's life under Slurm: stage, drain, release."""

import os
import shutil
import signal
import subprocess

import pytest

from contract.settings import REPOSITORY, load_settings
from tests.conftest import HANG_S, wait_until

SLURM = REPOSITORY / "deploy" / "slurm"
# Writes down what the worker would see, says so, and runs until it is told to end.
WORKER = """#!/usr/bin/env bash
ls -R "${EVASCORE_CACHE_DIR%/cache}" > seen
env | grep '^EVASCORE_' > variables
trap 'touch drained; exit 0' TERM
touch started
while [ ! -e ended ]; do sleep 0.02; done
exit 3
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with the scripts and a worker that only waits."""
    root = tmp_path / "checkout"
    shutil.copytree(SLURM, root / "deploy" / "slurm")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(WORKER)
    python.chmod(0o755)
    return root


@pytest.fixture
def arguments(checkout, tmp_path):
    """A complete command line."""
    password = tmp_path / "password"
    password.write_text("hunter2")
    password.chmod(0o600)
    checkpoint = tmp_path / "EvaByte"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    options = {
        "--redis-url": "rediss://evascore@redis.example.com:6380/0",
        "--password-file": password,
        "--checkpoint": checkpoint,
        "--scratch": tmp_path / "scratch",
    }
    words = [str(word) for option in options.items() for word in option]
    return [str(checkout / "deploy" / "slurm" / "submit"), *words]


@pytest.fixture
def left_behind(tmp_path):
    """Half a copy, of a run of the same job that was killed."""
    half = tmp_path / "scratch" / "evascore-42" / "checkpoint.part"
    half.mkdir(parents=True)
    (half / "half.safetensors").touch()


@pytest.fixture
def job(cloud, checkout, arguments):
    """The submitted job, which has started its worker."""
    process = subprocess.Popen(
        arguments, env=cloud.env, stdin=subprocess.DEVNULL, process_group=0, text=True
    )
    wait_until((checkout / "started").exists)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_worker_reads_its_checkpoint_from_the_scratch_disk(cloud, checkout, job, tmp_path):
    scratch = tmp_path / "scratch" / "evascore-42"
    assert "config.json" in (checkout / "seen").read_text()
    variables = dict(
        line.split("=", 1) for line in (checkout / "variables").read_text().splitlines()
    )
    assert variables["EVASCORE_MODEL"] == str(scratch / "checkpoint")
    assert variables["EVASCORE_MODEL_NAME"] == "EvaByte"
    assert variables["EVASCORE_WORKER_NAME"] == "slurm-42"
    assert variables["EVASCORE_DEVICE"] == "cuda"
    settings = load_settings(variables)
    assert settings.redis.startswith("rediss://evascore:hunter2@redis.example.com:6380/0")
    assert settings.model_cache == scratch / "cache"
    assert "hunter2" not in "".join(cloud.calls)


@pytest.mark.usefixtures("left_behind", "job")
def test_requeued_job_begins_its_copy_anew(tmp_path):
    copied = tmp_path / "scratch" / "evascore-42" / "checkpoint"
    assert [path.name for path in copied.iterdir()] == ["config.json"]


def test_notice_drains_the_worker_and_releases_the_scratch_disk(checkout, job, tmp_path):
    # Slurm's notice goes to the shell alone, which the fake sbatch has become.
    job.send_signal(signal.SIGTERM)
    assert job.wait(HANG_S) == 0
    assert (checkout / "drained").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_cancelled_job_drains_the_worker_though_both_get_the_signal(checkout, job, tmp_path):
    # scancel signals all processes of a job, and the shell signals its worker once more.
    os.killpg(job.pid, signal.SIGTERM)
    assert job.wait(HANG_S) == 0
    assert (checkout / "drained").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_failure_of_the_worker_is_that_of_the_job(checkout, job, tmp_path):
    (checkout / "ended").touch()
    assert job.wait(HANG_S) == 3
    assert list((tmp_path / "scratch").iterdir()) == []


def test_notice_while_copying_ends_the_job_before_a_worker_starts(
    cloud, checkout, arguments, tmp_path
):
    fakes = tmp_path / "slow"
    fakes.mkdir()
    slow_copy = f'#!/bin/sh\ntouch "{tmp_path / "copying"}"\nexec sleep 600\n'
    (fakes / "cp").write_text(slow_copy)
    (fakes / "cp").chmod(0o755)
    env = {**cloud.env, "PATH": f"{fakes}:{cloud.env['PATH']}"}
    process = subprocess.Popen(arguments, env=env, stdin=subprocess.DEVNULL)
    try:
        wait_until((tmp_path / "copying").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_S / 2) == 0
    finally:
        process.kill()
        process.wait()
    assert not (checkout / "started").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_array_limit_and_cluster_are_handed_on(cloud, arguments):
    more = ["--workers", "8", "--at-once", "2", "--partition", "gpu", "--time", "1:00:00"]
    more += ["--set", "EVASCORE_QUANTIZATION=int8", "--set", "EVASCORE_REDIS_TIMEOUT_S=4"]
    shown = cloud.run([*arguments, *more, "--dry-run"])
    assert shown.returncode == 0, shown.stderr
    for word in (
        "--array=1-8%2",
        "--partition=gpu",
        "--time=1:00:00",
        "EVASCORE_QUANTIZATION=int8",
    ):
        assert word in shown.stdout
    assert "hunter2" not in shown.stdout
    assert cloud.calls == []


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (["--redis-url", "redis://redis.example.com/0"], "rediss://"),
        (["--redis-url", "rediss://me:hunter2@redis.example.com/0"], "--password-file"),
        (["--password-file", "/nonexistent"], "no file"),
        (["--checkpoint", "/"], "no config.json"),
        (["--workers", "0"], "whole number"),
        (["--scratch", "/a,EVASCORE_HOST=x"], "comma"),
        (["--set", "EVASCORE_QUANTIZATION"], "EVASCORE_NAME=VALUE"),
        (["--set", "PATH=/tmp"], "EVASCORE_NAME=VALUE"),
        (["--set", "EVASCORE_DTYPE=a,EVASCORE_HOST=x"], "comma"),
        (["--set", "EVASCORE_REDIS_PASSWORD=hunter2"], "--password-file"),
        (["--set", "EVASCORE_MODEL=/elsewhere"], "--checkpoint"),
        (["--set", "EVASCORE_DEVICE=cpu"], "EVASCORE_DEVICE itself"),
        (["--wrong", "x"], "unknown option"),
        (["--time"], "needs a value"),
    ],
)
def test_mistake_is_refused_in_one_line(cloud, arguments, wrong, remedy):
    refused = cloud.run([*arguments, *wrong])
    assert refused.returncode == 2
    assert remedy in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert cloud.calls == []


def test_password_that_others_can_read_is_refused(cloud, arguments, tmp_path):
    (tmp_path / "password").chmod(0o640)
    refused = cloud.run(arguments)
    assert "chmod 600" in refused.stderr
    assert cloud.calls == []


def test_refusal_of_slurm_is_passed_on(cloud, arguments):
    (cloud.folder / "refusal").write_text("sbatch: error: invalid partition\n")
    refused = cloud.run(arguments)
    assert refused.returncode == 1
    assert "invalid partition" in refused.stderr
