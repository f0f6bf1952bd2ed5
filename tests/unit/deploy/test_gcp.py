"""`deploy/gcp/`: which gcloud commands are run, what follows when they fail, what never leaves."""

import shutil
import subprocess

import pytest

from contract.api_keys import new_key
from contract.settings import REPOSITORY

GCP = REPOSITORY / "deploy" / "gcp"
COMMANDS = {
    "up": [],
    "sync": [],
    "status": [],
    "logs": [],
    "fetch-results": ["abc"],
    "bake-image": ["image-1"],
    "down": [],
    "keep-alive": [],
}
DESCRIBE = "instances describe"
ABSENT = {"code": 1, "stderr": "ERROR: The resource 'evascore' was not found\n"}


def gcp(cloud, command, *arguments, **variables):
    """Run one of the commands, without waiting between two looks."""
    return cloud.run([GCP / command, *arguments], VM_POLL_S="0", **variables)


@pytest.fixture
def running(cloud):
    """A VM that runs."""
    cloud.answer(DESCRIBE, stdout="RUNNING\n")
    return cloud


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_the_options_and_calls_nobody(cloud, command):
    helped = gcp(cloud, command, "--help")
    assert helped.returncode == 0
    assert "--dry-run" in helped.stdout
    assert cloud.calls == []


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_option_is_refused_in_one_line(cloud, command):
    refused = gcp(cloud, command, "--wrong")
    assert refused.returncode == 2
    assert "--wrong" in refused.stderr
    assert cloud.calls == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "keep-alive"])
def test_dry_run_shows_commands_and_calls_nobody(cloud, command):
    shown = gcp(cloud, command, *COMMANDS[command], "--dry-run", "--zone", "z", "--project", "p")
    assert shown.returncode == 0, shown.stderr
    commands = [line for line in shown.stdout.splitlines() if line.startswith("+ gcloud compute ")]
    assert commands
    assert all("zone=z" in line and "--project=p" in line for line in commands)
    assert cloud.calls == []


def test_status_tells_how_to_reach_the_vm_where_it_is(running):
    running.answer("compute ssh")
    reply = gcp(running, "status", "--zone", "z", "--project", "p").stdout
    assert "gcloud compute ssh evascore --zone=z --project=p -- -NL 8000:localhost:8000" in reply


def test_up_creates_a_spot_vm_that_stops_by_itself_and_may_do_nothing(cloud):
    cloud.answer(DESCRIBE, **ABSENT)
    cloud.answer("test -e /run/evascore-machine-ready", code=1, times=2)
    cloud.answer("test -e /run/evascore-machine-ready")
    made = gcp(cloud, "up", "--max-hours", "3")
    assert made.returncode == 0, made.stderr
    create = next(call for call in cloud.calls if "instances create" in call)
    for flag in (
        "--machine-type=g2-standard-4",
        "--provisioning-model=SPOT",
        "--instance-termination-action=STOP",
        "--max-run-duration=3h",
        "--no-service-account",
        "startup.sh",
    ):
        assert flag in create
    assert sum("machine-ready" in call for call in cloud.calls) == 3


def test_up_leaves_a_vm_that_runs_as_it_is_and_claims_no_limit_for_it(running):
    running.answer("compute ssh")
    ready = gcp(running, "up", "--max-hours", "2")
    assert ready.returncode == 0
    assert all("describe" in call or " ssh " in call for call in running.calls)
    assert "2 hours" not in ready.stdout


def test_up_starts_a_stopped_vm_under_the_limit_that_was_asked_for(cloud):
    cloud.answer(DESCRIBE, stdout="TERMINATED\n")
    cloud.answer("compute ssh")
    assert gcp(cloud, "up", "--max-hours", "2").returncode == 0
    limit, start = (call for call in cloud.calls if "describe" not in call and " ssh " not in call)
    assert "instances set-scheduling evascore --max-run-duration=2h" in limit
    assert "instances start evascore" in start


@pytest.mark.parametrize(
    "option", [["--with-storage"], ["--on-demand"], ["--disk-gb", "200"]], ids=lambda o: o[0]
)
def test_up_refuses_what_a_vm_that_is_there_would_not_heed(running, option):
    refused = gcp(running, "up", *option)
    assert refused.returncode == 2
    assert option[0] in refused.stderr
    assert all("describe" in call for call in running.calls)


def test_up_says_why_a_vm_was_not_reached(running):
    running.answer("compute ssh", code=255, stderr="first\nPermission denied (publickey).\n")
    failed = gcp(running, "up", VM_READY_S="0")
    assert failed.returncode == 1
    assert "Permission denied (publickey)." in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("ERROR: ZONE_RESOURCE_POOL_EXHAUSTED", "another --zone"),
        ("ERROR: Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0", "GPUS_ALL_REGIONS"),
        ("ERROR: You do not currently have an active account selected.", "gcloud auth login"),
        ("ERROR: SERVICE_DISABLED", "gcloud services enable"),
        ("first\nERROR: something else", "something else"),
    ],
)
def test_failure_of_gcloud_becomes_one_line_with_a_remedy(cloud, said, remedy):
    cloud.answer(DESCRIBE, **ABSENT)
    cloud.answer("instances create", code=1, stderr=f"{said}\n")
    failed = gcp(cloud, "up")
    assert failed.returncode == 1
    assert remedy in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize("hours", ["0", "169", "2h", "-1", ""])
def test_time_limit_out_of_range_is_refused(cloud, hours):
    refused = gcp(cloud, "up", "--max-hours", hours)
    assert refused.returncode == 2
    assert "--max-hours must be a whole number from 1 to 168" in refused.stderr
    assert cloud.calls == []


@pytest.mark.parametrize("command", ["sync", "status", "logs", "fetch-results", "bake-image"])
@pytest.mark.parametrize("state", [{"stdout": "TERMINATED\n"}, ABSENT], ids=["stopped", "absent"])
def test_command_for_a_running_vm_says_so_when_there_is_none(cloud, command, state):
    cloud.answer("--format=value(status)", **state)
    failed = gcp(cloud, command, *COMMANDS[command])
    assert failed.returncode == 1
    assert "run deploy/gcp/up first" in failed.stderr
    assert not any(" ssh " in call for call in cloud.calls)


@pytest.fixture
def repository(tmp_path):
    """A working tree with what is committed, new, deleted, ignored and secret."""
    root = tmp_path / "repository"
    (root / "deploy" / "gcp").mkdir(parents=True)
    for name in ("sync", "lib.sh"):
        shutil.copy(GCP / name, root / "deploy" / "gcp" / name)
    (root / ".gitignore").write_text(".env\nignored\n")
    (root / "new, with spaces").write_text("not committed")
    (root / "ignored").write_text("stays here")
    (root / "deleted").write_text("gone")
    (root / ".env").write_text("EVASCORE_REDIS_URL=redis://:hunter2@redis\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    (root / "deleted").unlink()
    return root


def test_sync_copies_what_git_knows_and_the_settings_through_ssh_alone(running, repository):
    running.answer("deploy/vm/install")
    running.answer("systemctl restart")
    target = running.vm / "evascore"
    (running.vm / "evascore").mkdir()
    (running.vm / "evascore" / "of an earlier copy").touch()
    command = [repository / "deploy" / "gcp" / "sync", "--backup", "gs://bucket/path"]
    copied = running.run(command, VM_DIR=str(target))
    assert copied.returncode == 0, copied.stderr
    found = sorted(str(p.relative_to(target)) for p in target.rglob("*") if not p.is_dir())
    assert found == [
        ".env",
        ".gitignore",
        "deploy/gcp/lib.sh",
        "deploy/gcp/sync",
        "new, with spaces",
    ]
    assert "hunter2" in (target / ".env").read_text()
    assert (running.vm / "evascore.env").stat().st_mode & 0o777 == 0o600
    assert (running.vm / "evascore.backup").read_text() == "BACKUP_PLACE=gs://bucket/path\n"
    assert "hunter2" not in "".join(running.calls) + copied.stdout + copied.stderr


@pytest.mark.parametrize(
    ("failing", "remedy"),
    [
        ("tar --extract", "the copy failed"),
        ("deploy/vm/build", "evascore was not restarted"),
        ("systemctl restart", "deploy/gcp/logs"),
    ],
)
def test_sync_says_where_to_look_when_it_fails(running, repository, failing, remedy):
    running.answer(failing, code=1)
    running.answer("compute ssh")
    failed = running.run([repository / "deploy" / "gcp" / "sync"])
    assert failed.returncode == 1
    assert remedy in failed.stderr
    # Nothing follows what failed: the release before goes on.
    assert failing in running.calls[-1]


def test_results_are_fetched_into_files_of_their_own(running, tmp_path):
    running.answer("localhost:8000/score/good", stdout='{"state": "SUCCESS"}')
    running.answer("localhost:8000/score/bad", code=22)
    fetched = gcp(running, "fetch-results", "good", "bad", "--to", str(tmp_path / "to"))
    assert fetched.returncode == 1
    assert "/score/bad?wait=30 was not answered" in fetched.stderr
    assert (tmp_path / "to" / "good.json").read_text() == '{"state": "SUCCESS"}'
    assert not (tmp_path / "to" / "bad.json").exists()


@pytest.mark.parametrize("command", [["fetch-results", "good"], ["status"]])
def test_api_key_goes_through_stdin_and_into_no_command_line(running, tmp_path, command):
    running.answer("curl", stdout="{}")
    folder = ["--to", str(tmp_path)] if command[0] == "fetch-results" else []
    ran = gcp(running, *command, *folder, EVASCORE_API_KEY="evs_hunter2")
    assert ran.returncode == 0, ran.stderr
    (call,) = (call for call in running.calls if "curl" in call)
    assert "-H @-" in call
    assert "hunter2" not in "".join(running.calls) + ran.stdout + ran.stderr


def test_results_of_a_batch_are_gone_on_with(running, tmp_path):
    (tmp_path / "batch1.jsonl").write_text('{"index": 0}\n')
    running.answer("after=1&", stdout='{"index": 1}\n{"index": 2}\n')
    running.answer("after=3&", stdout="")
    fetched = gcp(running, "fetch-results", "--batch", "batch1", "--to", str(tmp_path))
    assert fetched.returncode == 0, fetched.stderr
    lines = (tmp_path / "batch1.jsonl").read_text().splitlines()
    assert lines == [f'{{"index": {n}}}' for n in range(3)]
    assert not list(tmp_path.glob("*.page*"))


@pytest.mark.parametrize("command", ["fetch-results", "logs", "bake-image"])
@pytest.mark.parametrize("name", ["'; rm -rf /", "a b", "../x"])
def test_what_is_no_name_is_not_sent_to_a_shell(cloud, command, name):
    assert gcp(cloud, command, name).returncode == 2
    assert cloud.calls == []


def test_logs_of_named_services_are_followed(running):
    running.answer("compute ssh")
    assert gcp(running, "logs", "web", "worker", "--follow").returncode == 0
    assert running.calls[-1].endswith("--tail 200 --follow web worker")


def test_down_stops_the_vm_and_keeps_its_disk(running):
    assert gcp(running, "down").returncode == 0
    assert [call for call in running.calls if "stop" in call or "delete" in call] == [
        "compute instances stop evascore --zone=us-central1-a"
    ]


def test_vm_is_deleted_only_after_a_backup(running):
    running.answer("compute ssh", code=1)
    refused = gcp(running, "down", "--delete")
    assert refused.returncode == 1
    assert "nothing is deleted" in refused.stderr
    assert not any("instances delete" in call for call in running.calls)


@pytest.mark.parametrize("arguments", [["--delete"], ["--delete", "--without-backup"]])
def test_vm_is_deleted_with_its_data_backed_up_or_given_up(running, arguments):
    running.answer("compute ssh")
    assert gcp(running, "down", *arguments).returncode == 0
    assert any("instances delete evascore" in call for call in running.calls)
    is_backed_up = any("start evascore-backup" in call for call in running.calls)
    assert is_backed_up == ("--without-backup" not in arguments)


def test_no_image_is_made_of_a_vm_with_secrets(running):
    running.answer("image-secrets list", code=1)
    running.answer("compute ssh")
    refused = gcp(running, "bake-image", "image-1")
    assert refused.returncode == 1
    assert "--clean" in refused.stderr
    assert not any("images create" in call for call in running.calls)


def test_image_is_made_of_the_stopped_vm_after_the_check(running):
    running.answer("compute ssh")
    assert gcp(running, "bake-image", "image-1", "--clean").returncode == 0
    order = [
        next(n for n, call in enumerate(running.calls) if words in call)
        for words in (
            "systemctl stop evascore",
            # Compose takes the paths in COMPOSE_FILE as relative to the current folder.
            "cd /opt/evascore && sudo docker compose --profile '*' down && ",
            "image-secrets remove",
            "image-secrets list",
            "instances stop",
            "images create image-1 --source-disk=evascore",
        )
    ]
    assert order == sorted(order)


SECRETS = [
    "opt/evascore.env",
    "opt/evascore/.env",
    "opt/evascore/.env.local",
    "opt/evascore/secrets/redis_password",
    "root/.bash_history",
    "home/ann/.python_history",
    "home/ann/.ssh/authorized_keys",
    "home/ann/.config/gcloud/credentials.db",
    "home/ann/.cache/huggingface/token",
    "root/.docker/config.json",
    "etc/ssh/ssh_host_ed25519_key",
    "var/lib/docker/containers/0a1b/config.v2.json",
    "var/lib/docker/volumes/evascore_backups/_data/redis-20261122T053000Z.tar.zst",
    "srv/redis-20261122T060000Z.tar.zst.part",
    "tmp/evascore-9omned4q/appendonlydir/appendonly.aof.1.incr.aof",
    "var/lib/docker/volumes/evascore_redis-data/_data/appendonlydir/appendonly.aof.1.incr.aof",
    "srv/renamed",
    "home/ann/token",
]
HARMLESS = [
    "opt/evascore/.env.example",
    "opt/evascore/README.md",
    "etc/ssh/sshd_config",
    "opt/evascore/.venv/lib/python3.11/site-packages/some/secrets/__init__.py",
    "var/lib/docker/volumes/evascore_quantized/_data/demo/model.safetensors",
]


@pytest.fixture
def disk(tmp_path):
    """A machine's disk with every kind of secret, and with what is none."""
    for name in [*SECRETS, *HARMLESS]:
        path = tmp_path / "disk" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    (tmp_path / "disk" / "srv" / "renamed").write_text(key)
    token, _ = new_key("ann", ["metrics"])
    (tmp_path / "disk" / "home" / "ann" / "token").write_text(f"{token}\n")
    return tmp_path / "disk"


IMAGE_SECRETS = REPOSITORY / "deploy" / "vm" / "image-secrets"


def test_every_secret_on_a_disk_is_named(cloud, disk):
    listed = cloud.run([IMAGE_SECRETS, "list", disk])
    assert listed.returncode == 1
    assert sorted(listed.stderr.splitlines()[:-1]) == sorted(f"/{name}" for name in SECRETS)


def test_removed_secrets_are_gone_and_nothing_else(cloud, disk):
    assert cloud.run([IMAGE_SECRETS, "remove", disk]).returncode == 0
    assert cloud.run([IMAGE_SECRETS, "list", disk]).returncode == 0
    left = sorted(str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file())
    assert left == sorted(HARMLESS)


def test_startup_script_and_units_hold_no_secret_and_are_all_installed(cloud, tmp_path):
    installed = cloud.run([REPOSITORY / "deploy" / "vm" / "install", "--root", tmp_path])
    assert installed.returncode == 0, installed.stderr
    units = sorted(path.name for path in (tmp_path / "etc/systemd/system").iterdir())
    there = (REPOSITORY / "deploy" / "vm").glob("evascore*")
    assert units == sorted(path.name for path in there)
