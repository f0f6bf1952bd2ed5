"""Command line of `deploy/state backup|restore|auto`."""

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from deploy.backup.errors import StateFailed
from deploy.backup.places import find_place
from deploy.backup.scratch import remove_leftovers
from deploy.backup.state import State

EPILOG = """
backup   store Redis's append-only file, and the caches if they changed; verify; delete old backups
restore  fill empty folders from the newest complete backup; no error if there is none
auto     restore empty folders, then back up regularly until stopped

Redis may run during a backup: it first rewrites its file, so that the backup holds no deleted text.
It must not run during a restore.

Copies are made in the folder that TMPDIR names, or in /tmp. It needs room for Redis's file and its
archive, and should not be in memory (tmpfs).
"""


def main() -> int:
    """Run one command; returns the exit code: 0, 1 when it failed, 2 for a bad command line."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        state = State(
            redis_dir=arguments.redis_dir,
            cache_dir=arguments.cache_dir,
            place=find_place(arguments.to),
            keep=arguments.keep,
            max_age_s=3600 * arguments.max_age_h,
            say=_say,
            is_dry_run=arguments.dry_run,
        )
        if arguments.command == "backup":
            state.backup()
        elif arguments.command == "restore":
            state.restore(keeps_what_is_there=arguments.keep_existing)
        else:
            _keep_backing_up(state, every_s=60 * arguments.every_min)
    except (StateFailed, OSError) as error:
        _complain(error)
        return 1
    return 0


def _stop(number: int, _: object) -> NoReturn:
    """End as a signal would, but delete the copies of texts in temporary folders."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _keep_backing_up(state: State, every_s: float) -> None:
    """Restore, then back up until SIGTERM; a backup that fails is repeated at its next turn.

    A restore is finished first. A backup is broken off, and its temporary copies are deleted.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    state.restore(keeps_what_is_there=True)
    if not state.is_dry_run:
        remove_leftovers()
    # A service manager or a script that waits for the restore reads this line.
    _say("ready")

    def break_off(number: int, _: object) -> NoReturn:
        # What cleans up may replace the exit by an error of its own.
        stopped.set()
        signal.signal(number, signal.SIG_IGN)
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, break_off)
    while not state.is_dry_run and not stopped.wait(every_s):
        try:
            state.backup()
        except (StateFailed, OSError) as error:
            _complain(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy/state",
        description="Back up and restore Redis's data and the caches.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("backup", "restore", "auto"))
    parser.add_argument(
        "--redis-dir",
        type=Path,
        required=True,
        help="data folder of Redis, which contains appendonlydir",
    )
    parser.add_argument("--cache-dir", type=Path, help="folder of quantized weights and kernels")
    parser.add_argument(
        "--to", required=True, help="where backups go: a folder or gs://BUCKET/PATH"
    )
    parser.add_argument("--keep", type=_positive, default=12, help="backups to keep (default 12)")
    parser.add_argument(
        "--max-age-h",
        type=_above_0,
        default=24,
        help="hours after which a backup of Redis is deleted when a new one is stored (default 24)",
    )
    parser.add_argument(
        "--every-min",
        type=_above_0,
        default=30,
        help="minutes between backups of auto (default 30)",
    )
    parser.add_argument(
        "--keep-existing", action="store_true", help="restore: skip folders that are not empty"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, do nothing"
    )
    return parser


def _above_0(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0 and below 1,000,000")
    return number


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _complain(error: Exception) -> None:
    if isinstance(error, PermissionError):
        error = StateFailed(f"no permission to read or write {error.filename}; run this as root")
    print(f"state: {error}", file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(f"state: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
