"""Reports the start and the run of all programs: as JSON lines, or as text for a person."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from contract import __version__
from contract.logs import get_logger
from contract.settings import Settings
from contract.worker_status import PHASES
from deploy.log_lines import event_of, readable, redis_message
from deploy.terminal import Terminal, styled

log = get_logger(__name__)

EXAMPLE = '{"text": "The quick brown fox jumps over the lazy dog."}'
# Where the client looks for the service unless it is given a URL.
DEFAULT_URL = "http://127.0.0.1:8000"
_STOPPING = "evascore stops: it finishes the running micro-batch and keeps waiting jobs."


class Report(Protocol):
    """What `make run` writes about its programs."""

    def reader_of(self, program: str) -> Callable[[str], None] | None:
        """Return what takes the lines of a program; None where it writes them itself."""

    def begin(self, step: str) -> None:
        """Note that a step of the start has begun."""

    def done(self, step: str, detail: str) -> None:
        """Note that a step of the start is done."""

    def ready(self, url: str, *, has_keys: bool) -> None:
        """Say that texts can be scored, and by which command.

        Args:
            has_keys: whether requests need an API key.
        """

    def refresh(self) -> None:
        """Show the time that the running step has taken."""

    def stopping(self) -> None:
        """Say that the programs are being ended."""

    def close(self) -> None:
        """Leave the terminal to the lines that follow."""

    def last_words(self, program: str) -> str | None:
        """Return the line in which a program said why it ended; None if it wrote it itself."""


def report_for(settings: Settings) -> Report:
    """The report in the form that EVASCORE_LOG_FORMAT and the output ask for."""
    is_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    is_text = settings.log_format == "text" or (settings.log_format == "auto" and is_terminal)
    return TextReport(Terminal(sys.stderr)) if is_text else JsonReport()


class JsonReport:
    """One JSON line per event; web server and worker write their own."""

    def reader_of(self, program: str) -> Callable[[str], None] | None:
        """Return a reader for Redis alone, whose lines are not JSON."""
        return _log_redis if program == "Redis server" else None

    def begin(self, step: str) -> None:
        """Write nothing: what a program does is in its own lines."""

    def done(self, step: str, detail: str) -> None:
        """Write nothing: what a program does is in its own lines."""

    def refresh(self) -> None:
        """Write nothing: lines in a file do not change."""

    def ready(self, url: str, *, has_keys: bool) -> None:
        """Write the event with the URL and a command to try."""
        log.info("service_ready", url=url, try_command=curl_of(url, has_keys=has_keys))

    def stopping(self) -> None:
        """Write the event."""
        log.info("service_stopping")

    def close(self) -> None:
        """Do nothing: there is no line that changes."""

    def last_words(self, program: str) -> str | None:
        """Return None: the line is in the output already."""
        return None


class TextReport:
    """Ticks for the start, then one short line per request and micro-batch."""

    def __init__(self, terminal: Terminal) -> None:
        """Write to `terminal`."""
        self._terminal = terminal
        self._began: dict[str, float] = {}
        self._phases = Phases()
        self._last_words: dict[str, str] = {}
        terminal.line(f"evascore {__version__}\n")

    def reader_of(self, program: str) -> Callable[[str], None] | None:
        """Return what shows a line of the program, or leaves it out."""
        if program == "Redis server":
            return self._show_redis
        return lambda line: self._show(program, line)

    def begin(self, step: str) -> None:
        """Note the time, and name the step in the last line."""
        self._began[step] = time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Show in the last line which step runs, and for how long."""
        if not self._began:
            return
        step, began = next(iter(self._began.items()))
        phase = f"{PHASES.get(self._phases.running, 'starting')}, " if step == "model" else ""
        self._terminal.status(f"  … {step:<7} {phase}{time.monotonic() - began:.0f} s")

    def done(self, step: str, detail: str) -> None:
        """Write the tick of the step, with the time it took."""
        if step in self._began:
            detail = f"{detail}, {time.monotonic() - self._began.pop(step):.1f} s"
        if step == "model" and (phases := self._phases.in_words()):
            detail = f"{detail} ({', '.join(phases)})"
        self._terminal.status("")
        self._terminal.done(step, detail)
        self.refresh()

    def ready(self, url: str, *, has_keys: bool) -> None:
        """Write what a newcomer does next."""
        self.done("ready", "")
        self._terminal.line()
        for name, value in next_steps(url, Path(sys.executable).parent, has_keys=has_keys):
            self._terminal.line(f"  {styled(f'{name:<6}', bold=True)} {value}")
        self._terminal.line()

    def stopping(self) -> None:
        """Write what is being waited for."""
        self.close()
        self._terminal.line(_STOPPING)

    def close(self) -> None:
        """Remove the line that changes."""
        self._began.clear()
        self._terminal.status("")

    def last_words(self, program: str) -> str | None:
        """Return what the program said last in plain words."""
        return self._last_words.get(program)

    def _show(self, program: str, line: str) -> None:
        event = event_of(line)
        if event is None:
            self._show_plain(program, line)
            return
        self._note(program, event)
        shown = readable(event)
        if shown is not None:
            self._terminal.line(shown)

    def _note(self, program: str, event: dict[str, Any]) -> None:
        """Keep what the step of the model shows."""
        if event["event"] == "startup_phase":
            self._phases.enter(program, str(event["phase"]))
            self.refresh()

    def _show_plain(self, program: str, line: str) -> None:
        """Show a line that is not an event, such as a traceback; keep one that explains an end."""
        prefix = "evascore worker: "
        if line.startswith(prefix):
            self._last_words[program] = line.removeprefix(prefix)
        elif line.strip():
            self._terminal.line(line)

    def _show_redis(self, line: str) -> None:
        message = redis_message(line)
        if message is not None:
            self._terminal.line(styled(f"Redis: {message}", fg="yellow"))


class Phases:
    """How long each phase of the first worker's start has taken, by its log lines."""

    # Shorter phases would hide the long ones.
    MIN_S = 0.5

    def __init__(self) -> None:
        """Begin with the imports, during which a worker writes nothing."""
        self.running = "import"
        self._began_at = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._program: str | None = None

    def enter(self, program: str, phase: str) -> None:
        """Note that a phase of the worker `program` has begun."""
        self._program = self._program or program
        if program == self._program:
            self._end_running()
            self.running = phase

    def in_words(self) -> list[str]:
        """Name the phases that took longest, with their times; nothing if none is known."""
        if self._program is None:
            return []
        self._end_running()
        long = {name: s for name, s in self._seconds.items() if s >= self.MIN_S}
        return [f"{PHASES.get(name, name)} {seconds:.1f} s" for name, seconds in long.items()]

    def _end_running(self) -> None:
        now = time.monotonic()
        elapsed_s, self._began_at = now - self._began_at, now
        self._seconds[self.running] = self._seconds.get(self.running, 0.0) + elapsed_s


def next_steps(url: str, scripts: Path, *, has_keys: bool) -> list[tuple[str, str]]:
    """The rows of what a newcomer does next, each with its name.

    Args:
        scripts: the folder of this environment's commands.
        has_keys: whether requests need an API key.
    """
    key = [("key", f"{scripts / 'python'} -m app.keys create NAME")] if has_keys else []
    return [
        ("page", f"{url}/"),
        *key,
        ("try", curl_of(url, has_keys=has_keys)),
        ("shell", shell_command(url, scripts)),
        ("docs", f"{url}/docs/"),
        ("stop", "Ctrl-C; accepted jobs are kept and scored after the next start"),
    ]


def curl_of(url: str, *, has_keys: bool) -> str:
    """A command that scores a text with the service at `url`."""
    headers = "-H 'Content-Type: application/json'"
    if has_keys:
        headers += ' -H "Authorization: Bearer $EVASCORE_API_KEY"'
    return f"curl '{url}/score?wait=10' {headers} -d '{EXAMPLE}'"


def shell_command(url: str, scripts: Path) -> str:
    """How to score a text with the client's command, and how to install it if it is missing.

    Args:
        scripts: the folder of this environment's commands.
    """
    # pip is there in any case, and the client is a package of its own.
    install = "" if (scripts / "evascore").exists() else f"{scripts / 'pip'} install ./client && "
    option = "" if url == DEFAULT_URL else f" --url {url}"
    return f'{install}{scripts / "evascore"} score{option} "Any text."'


def _log_redis(line: str) -> None:
    message = redis_message(line)
    if message is not None:
        log.warning("redis_message", message=message)
