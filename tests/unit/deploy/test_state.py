"""`deploy/state`: a Redis under load comes back whole, and what is damaged is not restored."""

import errno
import fcntl
import itertools
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress

import pytest
import redis

from contract import keys
from contract.settings import REPOSITORY
from deploy.backup import __main__ as backup
from deploy.backup.rewriting import LAST_BACKUP
from deploy.backup.scratch import PREFIX
from deploy.embedded_redis import place_for_socket
from tests.conftest import RedisServer, wait_until

STATE = REPOSITORY / "deploy" / "state"
# Of the user `backup` in a container.
RIGHTS = ("on", "nopass", f"%W~{LAST_BACKUP}", "-@all", "+bgrewriteaof", "+info", "+set")
# A backup in a test is not older than this.
HANG_S = 600


class Machine:
    """Folders of one machine and the place of its backups."""

    def __init__(self, cloud, folder, to):
        self.cloud = cloud
        self.redis_dir = folder / "redis"
        self.cache_dir = folder / "cache"
        self.to = to

    def state(self, command, *more, **variables):
        return self.cloud.run([STATE, *self.arguments(command), *more], **variables)

    def arguments(self, command):
        folders = ["--redis-dir", self.redis_dir, "--cache-dir", self.cache_dir]
        return [command, *map(str, folders), "--to", str(self.to)]

    def fill(self, text="1"):
        """Files that look like Redis's and a cache."""
        aof = self.redis_dir / "appendonlydir"
        aof.mkdir(parents=True, exist_ok=True)
        (aof / "appendonly.aof.1.base.rdb").write_text(f"base {text}")
        (aof / "appendonly.aof.1.incr.aof").write_text(f"more {text}")
        (aof / "appendonly.aof.manifest").write_text(
            "file appendonly.aof.1.base.rdb seq 1 type b\n"
            "file appendonly.aof.1.incr.aof seq 1 type i\n"
        )
        self.cache_dir.mkdir(exist_ok=True)
        (self.cache_dir / "weights").write_text(f"weights {text}")

    def files(self):
        """Path -> content of everything in both folders."""
        found = [*self.redis_dir.rglob("*"), *self.cache_dir.rglob("*")]
        base = self.redis_dir.parent
        return {str(p.relative_to(base)): p.read_text() for p in found if p.is_file()}

    def backups(self, kind="redis"):
        return sorted(path.name for path in self.to.glob(f"{kind}-*.zst"))


@pytest.fixture(params=["folder", "bucket"])
def place(request, cloud, tmp_path):
    """Where backups go."""
    return tmp_path / "backups" if request.param == "folder" else "gs://bucket/path"


@pytest.fixture
def machine(cloud, tmp_path):
    """A machine that backs up to a folder."""
    return Machine(cloud, tmp_path / "one", tmp_path / "backups")


def test_new_machine_gets_what_the_old_one_had(cloud, tmp_path, place):
    old, new = Machine(cloud, tmp_path / "old", place), Machine(cloud, tmp_path / "new", place)
    old.fill()
    assert old.state("backup").returncode == 0
    restored = new.state("restore")
    assert restored.returncode == 0, restored.stderr
    assert new.files() == old.files()


@pytest.mark.parametrize(
    ("moment", "since"),
    [("20200102T030405Z", "2020-01-02 03:04:05 UTC"), ("before-upgrade", "this backup")],
)
def test_restore_says_since_when_revoked_keys_work_again(cloud, machine, tmp_path, moment, since):
    machine.fill()
    machine.state("backup")
    (stored,) = (machine.to / name for name in machine.backups())
    (machine.to / f"{stored.name}.sha256").unlink()
    stored = stored.rename(machine.to / f"redis-{moment}.tar.zst")
    (machine.to / f"{stored.name}.sha256").write_text(checksum_line(stored))
    restored = Machine(cloud, tmp_path / "new", machine.to).state("restore")
    (warning,) = [line for line in restored.stdout.splitlines() if "app.keys list" in line]
    assert f"API keys that were revoked since {since} work again" in warning


def test_backups_are_for_their_owner_even_in_a_folder_open_to_others(machine):
    machine.to.mkdir(mode=0o755)
    machine.fill()
    assert machine.state("backup").returncode == 0
    assert {path.stat().st_mode & 0o777 for path in machine.to.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("command", "options", "exit_code"),
    [("backup", [], 128 + signal.SIGTERM), ("auto", ["--every-min", "0.001"], 0)],
    ids=["backup", "auto"],
)
def test_copies_of_a_backup_are_for_their_owner_and_go_when_it_is_stopped(
    cloud, tmp_path, command, options, exit_code
):
    machine = Machine(cloud, tmp_path / "one", "gs://bucket/path")
    machine.fill()
    machine.redis_dir.chmod(0o755)
    scratch, answer = tmp_path / "scratch", cloud.folder / "answers" / "slow"
    scratch.mkdir()
    answer.mkdir()
    (answer / "match").write_text("storage cp")
    # The upload goes on until somebody writes here.
    os.mkfifo(answer / "stdout")
    process = subprocess.Popen(
        [STATE, *machine.arguments(command), *options], env={**cloud.env, "TMPDIR": str(scratch)}
    )
    try:
        wait_until(lambda: any("storage cp" in call for call in cloud.calls))
        folders = list(scratch.iterdir())
        copied = list(scratch.rglob("*.aof"))
        modes = {folder.stat().st_mode & 0o777 for folder in folders}
        process.terminate()
        assert process.wait(60) == exit_code
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):
            os.close(os.open(answer / "stdout", os.O_WRONLY | os.O_NONBLOCK))
    assert (len(copied), modes) == (1, {0o700})
    assert not list(scratch.iterdir())


def test_redis_that_is_written_to_comes_back_with_all_it_had_answered(cloud, tmp_path):
    folder = tmp_path / "old"
    server = RedisServer(folder / "redis")
    server.data_dir.mkdir(parents=True)
    server.start()
    old = Machine(cloud, folder, tmp_path / "backups")
    answered, is_over = [], threading.Event()

    def write():
        with redis.Redis.from_url(server.url) as client:
            while not is_over.is_set():
                client.set(f"key:{len(answered)}", "x" * 1_000)
                answered.append(len(answered))
                if len(answered) % 2_000 == 200:
                    # Perhaps the last one is not done yet.
                    with suppress(redis.ResponseError):
                        client.bgrewriteaof()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        # Each write waits for the disk, and some disks are slow.
        wait_until(lambda: len(answered) > 300, HANG_S)
        num_before = len(answered)
        stored = old.state("backup")
    finally:
        is_over.set()
        writer.join()
        server.kill()
    assert stored.returncode == 0, stored.stderr
    assert len(answered) > num_before
    new = Machine(cloud, tmp_path / "new", old.to)
    assert new.state("restore").returncode == 0
    server = RedisServer(new.redis_dir)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            # Redis writes its file once per turn of its loop, before it answers.
            assert client.exists(*(f"key:{n}" for n in range(num_before))) == num_before
    finally:
        server.kill()


def test_first_run_without_a_backup_is_fine(machine):
    restored = machine.state("restore")
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "no backup of redis yet" in restored.stdout
    assert machine.state("backup").returncode == 0
    assert machine.backups() == []


def test_place_that_cannot_be_read_is_not_taken_for_an_empty_one(cloud, tmp_path):
    cloud.answer("storage ls", stderr="ERROR: 403 no permission\n", code=1)
    restored = Machine(cloud, tmp_path, "gs://bucket/path").state("restore")
    assert restored.returncode == 1
    assert "403 no permission" in restored.stderr


@pytest.mark.parametrize("damage", [b"", b"junk", None], ids=["cut", "overwritten", "no checksum"])
def test_damaged_backup_gives_way_to_the_one_before(cloud, machine, tmp_path, damage):
    machine.fill("whole")
    machine.state("backup")
    good = machine.to / machine.backups()[0]
    good = good.rename(machine.to / "redis-20200101T000000Z.tar.zst")
    (machine.to / f"{good.name}.sha256").write_text(checksum_line(good))
    newest = machine.to / "redis-20400101T000000Z.tar.zst"
    newest.write_bytes(good.read_bytes() if damage is None else damage)
    if damage is not None:
        (machine.to / f"{newest.name}.sha256").write_text(checksum_line(good))
    new = Machine(cloud, tmp_path / "new", machine.to)
    assert new.state("restore").returncode == 0
    assert new.files() == machine.files()


def checksum_line(path):
    """What `sha256sum` prints for a file."""
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout


def test_restore_fails_when_every_backup_is_damaged(cloud, machine, tmp_path):
    machine.fill()
    machine.state("backup")
    (machine.to / machine.backups()[0]).write_bytes(b"junk")
    new = Machine(cloud, tmp_path / "new", machine.to)
    restored = new.state("restore")
    assert restored.returncode == 1
    assert "every backup of redis is damaged" in restored.stderr
    assert new.files() == {}


def test_restore_leaves_a_folder_in_use_alone(machine):
    machine.fill("old")
    machine.state("backup")
    machine.fill("new")
    restored = machine.state("restore")
    assert restored.returncode == 1
    assert "not empty" in restored.stderr
    assert len(restored.stderr.splitlines()) == 1
    assert "weights new" in machine.files().values()


def test_restore_that_was_killed_is_begun_anew(cloud, machine, tmp_path):
    machine.fill()
    machine.state("backup")
    new = Machine(cloud, tmp_path / "new", machine.to)
    (new.redis_dir / ".restoring" / "appendonlydir").mkdir(parents=True)
    assert new.state("restore").returncode == 0
    assert new.files() == machine.files()


def test_copies_of_a_killed_backup_are_deleted_by_the_next_one(machine, tmp_path):
    scratch = tmp_path / "scratch"
    killed, of_another, new = (scratch / f"{PREFIX}{name}" for name in ("killed", "used", "new"))
    for folder in (killed, of_another, new):
        (folder / "appendonlydir").mkdir(parents=True)
        (folder / "appendonlydir" / "texts").write_text("marker")
    an_hour_ago = time.time() - 3600
    os.utime(killed, (an_hour_ago, an_hour_ago))
    os.utime(of_another, (an_hour_ago, an_hour_ago))
    machine.fill()
    used = os.open(of_another, os.O_RDONLY)
    try:
        fcntl.flock(used, fcntl.LOCK_EX)
        stored = machine.state("backup", TMPDIR=str(scratch))
    finally:
        os.close(used)
    assert stored.returncode == 0, stored.stderr
    assert sorted(scratch.iterdir()) == [new, of_another]


def test_backup_makes_its_copies_where_tmpdir_says(machine, tmp_path):
    scratch, seen = tmp_path / "scratch", tmp_path / "seen"
    scratch.mkdir()
    # Fails, and shows the folder that it was to fill.
    tar = tmp_path / "bin" / "tar"
    tar.parent.mkdir()
    tar.write_text(f'#!/bin/sh\nls "{scratch}" > "{seen}"\nkill -KILL $$\n')
    tar.chmod(0o755)
    machine.fill()
    path = f"{tar.parent}:{machine.cloud.env['PATH']}"
    failed = machine.state("backup", TMPDIR=str(scratch), PATH=path)
    assert failed.returncode == 1
    assert "tar was killed by signal 9; check that this machine" in failed.stderr
    # The copy of the file, and the archive.
    assert [name.startswith(PREFIX) for name in seen.read_text().split()] == [True, True]
    assert not list(scratch.iterdir())


def test_unchanged_caches_are_stored_once(machine):
    machine.fill()
    machine.state("backup")
    again = machine.state("backup")
    assert "up to date" in again.stdout
    assert len(machine.backups("caches")) == 1


def test_the_newest_backups_are_kept_and_leftovers_go(machine):
    machine.fill()
    machine.to.mkdir()
    for year in range(2020, 2025):
        archive = machine.to / f"redis-{year}0101T000000Z.tar.zst"
        archive.write_bytes(b"old")
        (machine.to / f"{archive.name}.sha256").write_text("0")
    (machine.to / "redis-20200202T000000Z.tar.zst.part").write_bytes(b"interrupted")
    assert machine.state("backup", "--keep", "2", "--max-age-h", "999999").returncode == 0
    kept = machine.backups()
    assert len(kept) == 2
    assert kept[0] == "redis-20240101T000000Z.tar.zst"
    assert len(list(machine.to.glob("redis-*"))) == 4


def test_backups_of_redis_expire_and_those_of_caches_stay(machine):
    machine.fill()
    machine.to.mkdir()
    now = time.time()
    for kind, age_h in itertools.product(("redis", "caches"), (25, 23)):
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now - 3600 * age_h))
        archive = machine.to / f"{kind}-{moment}.tar.zst"
        archive.write_bytes(b"old")
        (machine.to / f"{archive.name}.sha256").write_text("0")
    assert machine.state("backup").returncode == 0
    assert len(machine.backups("redis")) == 2
    assert len(machine.backups("caches")) == 3


@pytest.mark.parametrize("moment", ["before-upgrade", "", "20261399T000000Z"])
def test_backup_without_a_time_in_its_name_stays_and_hinders_no_other(machine, moment):
    machine.fill()
    machine.to.mkdir()
    archive = machine.to / f"redis-{moment}.tar.zst"
    archive.write_bytes(b"old")
    (machine.to / f"{archive.name}.sha256").write_text("0")
    for _ in range(2):
        backed_up = machine.state("backup", "--keep", "1")
        assert backed_up.returncode == 0, backed_up.stderr
        assert archive.exists()
        assert len(machine.backups()) == 2


def test_first_backup_that_fails_is_noted_until_one_is_stored(cloud, tmp_path):
    server = RedisServer(tmp_path / "redis")
    server.data_dir.mkdir()
    no_folder = tmp_path / "file"
    no_folder.touch()
    good = Machine(cloud, tmp_path, tmp_path / "backups")
    bad = Machine(cloud, tmp_path, no_folder)
    noted = []
    with place_for_socket(server.data_dir) as server.socket:
        server.start()
        try:
            with redis.Redis.from_url(server.url) as client:
                client.execute_command("ACL", "SETUSER", "backup", *RIGHTS)
                for machine in (bad, good, bad):
                    machine.state("backup")
                    noted.append(client.get(keys.LAST_BACKUP))
        finally:
            server.kill()
    assert noted[0] == b"0"
    assert int(noted[1]) > time.time() - HANG_S
    assert noted[2] == noted[1]


def test_backup_holds_nothing_that_was_deleted(cloud, tmp_path):
    server = RedisServer(tmp_path / "redis")
    server.data_dir.mkdir()
    with place_for_socket(server.data_dir) as server.socket:
        server.start()
        try:
            with redis.Redis.from_url(server.url) as client:
                client.execute_command("ACL", "SETUSER", "backup", *RIGHTS)
                client.set("kept", "kept-marker")
                client.set("deleted", "deleted-marker")
                client.delete("deleted")
            machine = Machine(cloud, tmp_path, tmp_path / "backups")
            stored = machine.state("backup")
            with redis.Redis.from_url(server.url) as client:
                noted = client.get(keys.LAST_BACKUP)
        finally:
            server.kill()
    assert keys.LAST_BACKUP == LAST_BACKUP
    assert time.time() - HANG_S < int(noted) <= time.time()
    assert stored.returncode == 0, stored.stderr
    assert "deleted texts" not in stored.stdout
    (archive,) = machine.to.glob("redis-*.zst")
    subprocess.run(["tar", "--extract", "--file", archive], cwd=tmp_path, check=True)
    content = b"".join(path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir())
    assert b"kept-marker" in content
    assert b"deleted-marker" not in content


def test_backup_without_a_running_redis_says_what_it_may_hold(machine):
    machine.fill()
    stored = machine.state("backup")
    assert stored.returncode == 0
    assert "may hold deleted texts" in stored.stdout


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--keep", "a whole number of at least 1"),
        ("--every-min", "a number above 0"),
        ("--max-age-h", "a number above 0"),
    ],
)
@pytest.mark.parametrize("value", ["some", "0"])
def test_wrong_number_is_refused_with_its_limit(machine, option, wanted, value):
    refusal = machine.state("auto", option, value)
    assert refusal.returncode == 2
    assert f"{option}: '{value}' must be {wanted}" in refusal.stderr


def test_dry_run_writes_nothing(machine):
    machine.fill()
    said = machine.state("backup", "--dry-run")
    assert "would store redis-" in said.stdout
    assert not machine.to.exists()


def test_place_that_cannot_be_written_is_named(machine):
    machine.fill()
    machine.to.write_text("a file")
    failed = machine.state("backup")
    assert failed.returncode == 1
    assert "name another place with --to" in failed.stderr


def test_auto_restores_backs_up_again_and_again_and_stops_at_sigterm(cloud, machine, tmp_path):
    machine.fill()
    machine.state("backup")
    new = Machine(cloud, tmp_path / "new", machine.to)
    command = [STATE, *new.arguments("auto"), "--every-min", "0.001", "--keep", "1"]
    process = subprocess.Popen(command, env=cloud.env, stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(process.stdout.readline, "")
        assert "state: ready\n" in lines
        assert new.files() == machine.files()
        assert any("stored redis-" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class CleansUpBadly:
    """A state whose backup gets SIGTERM and fails in its clean-up, as `shutil.rmtree` may then."""

    is_dry_run = False
    num_backups = 0

    def restore(self, *, keeps_what_is_there):
        pass

    def backup(self):
        self.num_backups += 1
        assert self.num_backups == 1, "it goes on"
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise OSError(errno.EBADF, "Bad file descriptor")


def test_auto_stops_at_sigterm_though_an_error_of_the_clean_up_hides_the_exit(monkeypatch, capfd):
    monkeypatch.setattr(backup, "remove_leftovers", lambda: None)
    state = CleansUpBadly()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        backup._keep_backing_up(state, every_s=0.001)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert state.num_backups == 1
    assert "Bad file descriptor" in capfd.readouterr().err
