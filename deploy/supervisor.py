"""Runs programs side by side, restarts those that die, and stops all in order.

A program that dies is restarted at once, and after repeated deaths with a growing pause. One that
refuses to run (exit code 78) ends all others, unless it may be tried again later. Each program
leads a session of its own. So Ctrl-C in the terminal reaches only this process, which stops the
program that started last first.
"""

import asyncio
import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from contract.logs import get_logger

# A program that ran this long was healthy: its next death counts as its first.
HEALTHY_S = 10.0
FIRST_PAUSE_S = 0.25
# Long enough to spare the cores, short enough for jobs that wait: the worker itself starts in 3 s.
MAX_PAUSE_S = 2.0
# A second SIGINT this soon is the same key press, sent by the terminal and by a parent.
SAME_KEY_PRESS_S = 0.5
# What a pipe holds on Linux.
PIPE_BYTES = 65_536
PR_SET_PDEATHSIG = 1  # linux/prctl.h

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """A command to run, and how long it may take to end."""

    name: str
    command: Sequence[str] | Callable[[], Sequence[str]]
    """A function is called before each start, also after a death."""
    stop_s: float
    """Seconds from SIGTERM to SIGKILL."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides those of this process."""
    is_killed_when_hurried: bool = True
    """Whether a second Ctrl-C ends it by SIGKILL at once."""
    on_line: Callable[[str], None] | None = None
    """Takes each line that it writes; without it, the program writes to our own output."""
    refusal_pause_s: float | None = None
    """Seconds from exit code 78 to the next try, once all programs have been ready. None: that exit
    code ends all programs."""


class ProgramFailed(Exception):
    """A program ended in a way that a restart cannot fix."""

    def __init__(self, program: Program, exit_code: int, reason: str | None = None) -> None:
        """Name the program, or give its own `reason`."""
        ended = f"the {program.name} ended with exit code {exit_code}; its lines above say why"
        super().__init__(ended if reason is None else reason)
        self.program = program
        self.exit_code = exit_code


class Supervisor:
    """Programs that run until `stop`; lives in one asyncio event loop."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when all must stop: after a signal, or with ProgramFailed."""
        self.is_hurried = asyncio.Event()
        """Set by a second Ctrl-C."""
        self.has_been_ready = False
        """The caller sets it when all programs are ready; earlier exits are not restarted."""
        self._keepers: list[tuple[_Keeper, asyncio.Task[None]]] = []

    def handle_signals(self) -> None:
        """Stop on SIGTERM, SIGHUP and Ctrl-C; hurry on the second Ctrl-C."""
        loop = asyncio.get_running_loop()
        interrupted_at: list[float] = []

        def interrupt() -> None:
            if interrupted_at and loop.time() - interrupted_at[0] > SAME_KEY_PRESS_S:
                self.is_hurried.set()
            interrupted_at.append(loop.time())
            self._end(None)

        loop.add_signal_handler(signal.SIGINT, interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end, None)

    def start(self, program: Program) -> None:
        """Start `program` and keep it running."""
        keeper = _Keeper(program, self)
        self._keepers.append((keeper, asyncio.create_task(keeper.run())))

    async def stop(self) -> None:
        """End all programs, the one started last first."""
        for keeper, task in reversed(self._keepers):
            await keeper.stop()
            await task

    def is_hopeless(self, program: Program, exit_code: int) -> bool:
        """Whether a program that ended with `exit_code` would end so again after a restart."""
        if self.has_been_ready:
            return exit_code == os.EX_CONFIG and program.refusal_pause_s is None
        # Negative: killed by a signal, which says nothing about the next try.
        return exit_code >= 0

    def fail(self, program: Program, exit_code: int) -> None:
        """Stop all programs because of this one."""
        self._end(ProgramFailed(program, exit_code))

    def _end(self, failure: ProgramFailed | None) -> None:
        if self.ended.done():
            return
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)


class _Keeper:
    """Runs one program again and again."""

    def __init__(self, program: Program, supervisor: Supervisor) -> None:
        self._program = program
        self._supervisor = supervisor
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Return when stopped, or when a restart cannot help."""
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while not self._stopping.is_set():
            started = loop.time()
            exit_code = await self._try_once()
            if self._stopping.is_set():
                return
            if self._supervisor.is_hopeless(self._program, exit_code):
                self._supervisor.fail(self._program, exit_code)
                return
            lived_s = loop.time() - started
            pause_s = self._next_pause_s(exit_code, lived_s, pause_s)
            write = log.error if exit_code == os.EX_CONFIG else log.warning
            write(
                "program_restarted",
                program=self._program.name,
                exit_code=exit_code,
                lived_s=round(lived_s, 1),
                pause_s=pause_s,
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    def _next_pause_s(self, exit_code: int, lived_s: float, before_s: float) -> float:
        """Return the pause before the next start; `before_s` is the pause before this one."""
        refusal_pause_s = self._program.refusal_pause_s
        if exit_code == os.EX_CONFIG and refusal_pause_s is not None:
            return refusal_pause_s
        return min(before_s * 2 or FIRST_PAUSE_S, MAX_PAUSE_S) if lived_s < HEALTHY_S else 0.0

    async def stop(self) -> None:
        """End the program: SIGTERM, then SIGKILL after `stop_s` or when the user hurries."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        waits = {asyncio.create_task(process.wait())}
        if self._program.is_killed_when_hurried:
            waits.add(asyncio.create_task(self._supervisor.is_hurried.wait()))
        _, pending = await asyncio.wait(
            waits, timeout=self._program.stop_s, return_when=asyncio.FIRST_COMPLETED
        )
        for wait in pending:
            wait.cancel()
        if process.returncode is None:
            log.warning("program_killed", program=self._program.name)
            _kill_group(process.pid)
            await process.wait()

    async def _try_once(self) -> int:
        """Run it; a start that the machine refuses counts as an end with exit code 1."""
        try:
            return await self._run_once()
        except OSError as error:
            # It has no memory or no process left, or the disk is away. It may have them again.
            log.error("program_not_started", program=self._program.name, error=str(error))
            return 1

    async def _run_once(self) -> int:
        command = self._program.command
        with _output_to(self._program.on_line) as output:
            self._process = await asyncio.create_subprocess_exec(
                *(command() if callable(command) else command),
                env={**os.environ, **self._program.environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
            exit_code = await self._process.wait()
            # A child that it left behind may hold its port.
            _kill_group(self._process.pid)
        return exit_code


@contextmanager
def _output_to(on_line: Callable[[str], None] | None) -> Iterator[int | None]:
    """Yield a file descriptor whose lines `on_line` gets; None without it.

    It is a pipe of our own. With a pipe of asyncio's, the wait for a process may last until all of
    its children have closed theirs.
    """
    if on_line is None:
        yield None
        return
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    lines = _Lines(reader, on_line)
    loop.add_reader(reader, lines.read)
    try:
        yield writer
    finally:
        os.close(writer)
        lines.read()
        lines.end()
        loop.remove_reader(reader)
        os.close(reader)


class _Lines:
    """Cuts what a pipe holds into lines; a progress bar ends each of its states with CR."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._rest = b""

    def read(self) -> None:
        """Hand on the lines that have arrived."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._descriptor, PIPE_BYTES):
                *lines, self._rest = re.split(rb"[\r\n]", self._rest + chunk)
                for line in lines:
                    self._on_line(line.decode(errors="replace"))

    def end(self) -> None:
        """Hand on a last line without an end."""
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))


def _kill_group(leader: int) -> None:
    # macOS answers "not permitted" for a group that has only zombies left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Have the kernel kill this child when the supervisor dies, even by SIGKILL (Linux only)."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
