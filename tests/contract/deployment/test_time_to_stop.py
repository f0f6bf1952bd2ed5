"""A stop has an order and a time: what stops the worker waits longer than the worker drains."""

import re

from app.server.gunicorn_worker import CUT_OFF_S, EXIT_S, STOP_LINGER_S
from contract.otel import STOP_S
from contract.settings import REPOSITORY, load_settings
from deploy import run

# From Google's notice to the end of a spot VM.
NOTICE_S = 30
# KillWait of slurm.conf by default: from SIGTERM to SIGKILL at scancel and at a preemption.
KILL_WAIT_S = 30
SETTINGS = load_settings({})
# The watch on the drain looks four times per lease; then the process ends.
DRAINED_S = SETTINGS.drain_s + SETTINGS.lease_s / 4 + 2
WEB_STOPPED_S = SETTINGS.drain_s + CUT_OFF_S + STOP_S


def number(path: str, pattern: str) -> float:
    """The number that `pattern` finds in a file of the repository."""
    found = re.search(pattern, (REPOSITORY / path).read_text(), flags=re.MULTILINE)
    assert found is not None, f"{pattern} in {path}"
    return float(found[1])


def test_spot_vm_drains_within_its_notice():
    unit = "deploy/vm/evascore.service"
    stop_s = number(unit, r"compose .*stop --timeout (\d+)$")
    assert stop_s >= DRAINED_S
    assert stop_s > WEB_STOPPED_S
    # Redis stops after the worker, and the units' own end takes a moment.
    assert stop_s + 2 <= number(unit, r"^TimeoutStopSec=(\d+)$") <= NOTICE_S - 2


def test_slurm_gives_notice_before_the_worker_has_to_end():
    notice_s = number("deploy/slurm/worker.sbatch", r"^#SBATCH --signal=B:TERM@(\d+)$")
    assert notice_s >= DRAINED_S


def test_cancelled_slurm_job_drains_before_it_is_killed():
    # The scratch folder is removed after the drain.
    assert DRAINED_S + 2 <= KILL_WAIT_S


def test_web_server_ends_before_its_master_and_its_supervisor_kill_it():
    assert SETTINGS.drain_s > STOP_LINGER_S
    assert CUT_OFF_S + STOP_S < EXIT_S < run.EXIT_S
