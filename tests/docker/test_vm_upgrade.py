"""An upgrade and a rollback of a VM: the real `sync`, unit and containers; gcloud is a fake.

The folder of a test is the VM's disk, and this machine's engine that of the VM.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import BUILD_S
from tests.docker.upgrades import Ledger, Upgraded, commands, started
from tests.releases import NEXT, THIS
from tests.unit.deploy.conftest import FakeCommands

# Units are installed in a folder of the test.
SUDO = """#!/bin/sh
case $1 in */deploy/vm/install) exec "$1" --root "$FAKES/root" ;; esac
exec "$@"
"""
# Restarts the unit as systemd does: first what stops it, then what starts it.
SYSTEMCTL = """#!/bin/sh
set -eu
[ "$*" = "restart evascore" ]
for key in ExecStop ExecStart; do
    command=$(sed -n "s|^$key=||p" "$FAKES/root/etc/systemd/system/evascore.service" |
        sed "s|/opt/evascore|$VM_DIR|g; s|^/usr/bin/||")
    echo "$command" >> "$FAKES/units"
    $command
done
"""


class Vm(Upgraded):
    """A service on a VM, to which releases are copied from a laptop."""

    def __init__(self, laptop: Path, cloud: FakeCommands) -> None:
        """Prepare both; the settings name the containers as the tests do."""
        super().__init__(laptop, cloud.vm / "evascore")
        self._cloud = cloud
        for name, code in (("sudo", SUDO), ("systemctl", SYSTEMCTL)):
            (cloud.folder / name).write_text(code)
            (cloud.folder / name).chmod(0o755)
        names = ("docker-compose.yml", "compose.cpu.yml")
        of_compose = {
            **self.variables,
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": ":".join(str(self.folder / name) for name in names),
        }
        with (laptop / ".env").open("a") as settings:
            settings.writelines(f"{name}={value}\n" for name, value in of_compose.items())
        cloud.answer("--format=value(status)", stdout="RUNNING\n")
        # The port is another one here.
        cloud.answer("localhost:8000/readyz")

    def release(self, version: str) -> None:
        """Run the commands of the document for this version."""
        variables = {
            "VM_DIR": str(self.folder),
            "PATH": f"{self._cloud.folder}:{self._cloud.env['PATH']}",
        }
        for line in commands("A VM of Google Cloud", version):
            program, *words = shlex.split(line)
            path = self.checkout / program
            command = [path if path.exists() else program, *words]
            done = self._cloud.run(command, BUILD_S, self.checkout, **variables)
            assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def ledger(images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """The running service, this release, and what was left by it."""
    cloud = FakeCommands(tmp_path_factory.mktemp("cloud"))
    with started(Vm(tmp_path_factory.mktemp("laptop"), cloud)) as ledger:
        yield ledger


def test_upgrade_of_a_vm_loses_no_job_and_no_result(ledger):
    ledger.upgrade(NEXT)


def test_rollback_of_a_vm_loses_no_job_and_no_result(ledger):
    ledger.upgrade(THIS)
