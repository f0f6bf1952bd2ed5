"""The supervisor over real processes: what dies is started again, what ends has an order."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from deploy.supervisor import Program, ProgramFailed, Supervisor
from tests.conftest import has_ended

# For hangs.
LIMIT_S = 120

# Writes its process ID, then runs until SIGTERM, which it notes.
RECORDER = """
import os, pathlib, signal, sys, time
name, log = sys.argv[1], pathlib.Path(sys.argv[2])
def note(word):
    with log.open("a") as file:
        file.write(f"{name} {word} {os.getpid()}\\n")
def end(*_):
    note("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
note("started")
time.sleep(600)
"""
STUBBORN = RECORDER.replace("sys.exit(0)", "pass")


def recorder(name: str, log: Path, *, code: str = RECORDER, stop_s: float = 10) -> Program:
    return Program(name, [sys.executable, "-S", "-c", code, name, str(log)], stop_s)


def exiting(exit_code: int, **options: Any) -> Program:
    command = [sys.executable, "-S", "-c", f"raise SystemExit({exit_code})"]
    return Program("exiting", command, 1, **options)


def refusing(log: Path, pause_s: float) -> Program:
    """A program that may be tried again after exit code 78, and notes each of its starts."""
    code = f"open({str(log)!r}, 'a').write('refused\\n'); raise SystemExit({os.EX_CONFIG})"
    return Program("refusing", [sys.executable, "-S", "-c", code], 1, refusal_pause_s=pause_s)


async def lines(log: Path, count: int) -> list[list[str]]:
    """The words of each line, once there are `count` lines."""
    while True:
        found = log.read_text().splitlines() if log.exists() else []
        if len(found) >= count:
            return [line.split() for line in found]
        await asyncio.sleep(0.01)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    # Much less than the programs sleep.
    asyncio.run(asyncio.wait_for(scenario, LIMIT_S))


def test_killed_program_is_started_again(tmp_path):
    log = tmp_path / "log"

    async def scenario():
        supervisor = Supervisor()
        supervisor.start(recorder("a", log))
        for kills in range(1, 4):
            found = await lines(log, kills)
            os.kill(int(found[-1][2]), signal.SIGKILL)
        await lines(log, 4)
        await supervisor.stop()

    run(scenario())
    words = [line.split()[1] for line in log.read_text().splitlines()]
    assert words == ["started"] * 4 + ["ended"]


def test_program_that_the_machine_cannot_start_is_tried_again(tmp_path):
    log = tmp_path / "log"
    program = recorder("a", log)
    starts = iter((program.command, OSError("stale file handle"), ["/no/such/program"]))

    def command():
        found = next(starts, program.command)
        if isinstance(found, OSError):
            raise found
        return found

    async def scenario() -> None:
        supervisor = Supervisor()
        supervisor.start(replace(program, command=command))
        [[_, _, pid]] = await lines(log, 1)
        supervisor.has_been_ready = True
        os.kill(int(pid), signal.SIGKILL)
        assert len(await lines(log, 2)) == 2
        await supervisor.stop()

    with capture_logs() as logs:
        run(scenario())
    errors = [each["error"] for each in logs if each["event"] == "program_not_started"]
    assert "stale file handle" in errors[0]
    assert "No such file" in errors[1]


def test_program_started_last_ends_first(tmp_path):
    log = tmp_path / "log"

    async def scenario():
        supervisor = Supervisor()
        for count, name in enumerate("abc", start=1):
            supervisor.start(recorder(name, log))
            await lines(log, count)
        await supervisor.stop()

    run(scenario())
    ended = [line.split()[0] for line in log.read_text().splitlines() if "ended" in line]
    assert ended == ["c", "b", "a"]


def test_program_that_exits_before_all_are_ready_is_not_tried_again():
    async def scenario():
        supervisor = Supervisor()
        supervisor.start(exiting(3))
        with pytest.raises(ProgramFailed, match="exit code 3"):
            await supervisor.ended
        await supervisor.stop()

    run(scenario())


def test_program_that_refuses_its_configuration_is_not_tried_again():
    async def scenario():
        supervisor = Supervisor()
        supervisor.has_been_ready = True
        supervisor.start(exiting(os.EX_CONFIG))
        with pytest.raises(ProgramFailed) as raised:
            await supervisor.ended
        assert raised.value.exit_code == os.EX_CONFIG
        await supervisor.stop()

    run(scenario())


def test_worker_that_refuses_later_is_tried_again_and_the_others_go_on(tmp_path):
    log, refused = tmp_path / "log", tmp_path / "refused"

    async def scenario():
        supervisor = Supervisor()
        supervisor.has_been_ready = True
        supervisor.start(recorder("healthy", log))
        supervisor.start(refusing(refused, pause_s=0.01))
        await lines(log, 1)
        await lines(refused, 3)
        assert not supervisor.ended.done()
        await supervisor.stop()

    run(scenario())
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["started", "ended"]


def test_worker_that_refuses_is_not_tried_again_before_its_pause(tmp_path):
    refused = tmp_path / "refused"

    async def scenario():
        supervisor = Supervisor()
        supervisor.has_been_ready = True
        with capture_logs() as events:
            supervisor.start(refusing(refused, pause_s=3600))
            await lines(refused, 1)
            while not events:
                await asyncio.sleep(0.01)
            # It ends at once, though the pause is long.
            await supervisor.stop()
        (event,) = events
        assert (event["log_level"], event["pause_s"]) == ("error", 3600)

    run(scenario())
    assert refused.read_text() == "refused\n"


def test_worker_that_refuses_at_the_start_ends_everything():
    async def scenario():
        supervisor = Supervisor()
        supervisor.start(exiting(os.EX_CONFIG, refusal_pause_s=0.01))
        with pytest.raises(ProgramFailed):
            await supervisor.ended
        await supervisor.stop()

    run(scenario())


def test_program_that_ignores_sigterm_is_killed_in_time(tmp_path):
    log = tmp_path / "log"

    async def scenario():
        supervisor = Supervisor()
        supervisor.start(recorder("a", log, code=STUBBORN, stop_s=0.3))
        await lines(log, 1)
        began = time.monotonic()
        await supervisor.stop()
        assert time.monotonic() - began >= 0.3

    run(scenario())


def test_hurry_kills_what_takes_its_time(tmp_path):
    log = tmp_path / "log"

    async def scenario():
        supervisor = Supervisor()
        supervisor.start(recorder("a", log, code=STUBBORN, stop_s=600))
        await lines(log, 1)
        stopping = asyncio.create_task(supervisor.stop())
        await lines(log, 2)
        supervisor.is_hurried.set()
        await stopping

    run(scenario())


def test_what_a_dead_program_left_running_is_ended(tmp_path):
    log = tmp_path / "log"
    parent = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-S', '-c', {RECORDER!r}, 'child', {str(log)!r}]);"
        "time.sleep(600)"
    )

    async def scenario():
        supervisor = Supervisor()
        supervisor.start(Program("parent", [sys.executable, "-S", "-c", parent], 5))
        ((_, _, pid),) = await lines(log, 1)
        child = psutil.Process(int(pid))
        child.parent().kill()
        await lines(log, 2)
        # It was killed before, but ends only once it gets a core.
        while not has_ended(child):
            await asyncio.sleep(0.01)
        await supervisor.stop()

    run(scenario())


def test_lines_of_a_program_are_handed_on_whole_and_to_the_last(tmp_path):
    code = (
        "import os, time\n"
        "os.write(1, b'half ')\n"
        "time.sleep(0.1)\n"
        "os.write(2, b'of a line\\n10%\\r20%\\r')\n"
        "os.write(1, b'x' * 200_000 + b'\\nlast, without an end')\n"
    )
    found: list[str] = []

    async def scenario():
        supervisor = Supervisor()
        command = [sys.executable, "-S", "-c", f"{code}raise SystemExit(3)"]
        supervisor.start(Program("writer", command, 1, on_line=found.append))
        with pytest.raises(ProgramFailed):
            await supervisor.ended
        await supervisor.stop()

    run(scenario())
    assert found == ["half of a line", "10%", "20%", "x" * 200_000, "last, without an end"]
