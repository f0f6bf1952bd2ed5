"""Has Redis rewrite its append-only file, so that a backup holds nothing that was deleted.

It speaks to the Unix socket in the data folder: the Redis of `make run` and of Compose has one. In
a container the user `backup` may do nothing else (`deploy/redis/start.sh`).
"""

import socket
import time
from collections.abc import Mapping
from io import BufferedRWPair
from pathlib import Path

from deploy.backup.errors import StateFailed

SOCKET = "redis.sock"
# A test compares it with `contract.keys`, which this program does not import.
LAST_BACKUP = "evascore:last_backup"
# A rewrite writes all of Redis's memory once. Even a slow disk needs less.
MAX_REWRITE_S = 600.0
_ANSWER_S = 10.0
_POLL_S = 0.05


def rewrite_aof(redis_dir: Path) -> bool:
    """Have the append-only file rewritten, and wait for it.

    Returns:
        Whether it was; False if no server answers at the socket in `redis_dir`.

    Raises:
        StateFailed: the server refuses, or the rewrite failed or took too long.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            # A symbolic link, where the data folder cannot hold a socket.
            connection.connect(str((redis_dir / SOCKET).resolve()))
        except OSError:
            return False
        try:
            with connection.makefile("rwb") as server:
                _rewrite(server)
        except OSError as error:
            raise StateFailed(
                f"Redis does not answer ({type(error).__name__}); see its log"
            ) from None
    return True


def note_backup(redis_dir: Path, at_s: int) -> None:
    """Tell Redis when a backup was stored, for the metrics; harmless where none runs or it refuses.

    Args:
        at_s: Unix time, seconds.
    """
    _note(redis_dir, f"SET {LAST_BACKUP} {at_s}")


def note_failure(redis_dir: Path) -> None:
    """Tell Redis that a backup failed, by the time 0, unless one was ever stored."""
    _note(redis_dir, f"SET {LAST_BACKUP} 0 NX")


def _note(redis_dir: Path, command: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(str((redis_dir / SOCKET).resolve()))
            with connection.makefile("rwb") as server:
                _ask(server, "AUTH backup any")
                _ask(server, command)
        except OSError:
            return


def _rewrite(server: BufferedRWPair) -> None:
    # The Redis of `make run` has no such user and needs none.
    _ask(server, "AUTH backup any")
    until = time.monotonic() + MAX_REWRITE_S
    # One that runs already may have begun before the last deletion.
    _wait(server, until)
    # A web server may have begun one since then, perhaps before the last deletion.
    while _is_running_already(answer := _ask(server, "BGREWRITEAOF")):
        _wait(server, until)
    _check(answer)
    if _wait(server, until)["aof_last_bgrewrite_status"] != "ok":
        raise StateFailed(
            "Redis could not rewrite its file; see its log, and check the free disk space"
        )


def _wait(server: BufferedRWPair, until: float) -> Mapping[str, str]:
    """What Redis reports about its files while no rewrite runs."""
    while True:
        if time.monotonic() > until:
            raise StateFailed(
                f"Redis has not finished rewriting its file after {MAX_REWRITE_S:.0f} s; "
                "see its log"
            )
        answer = _ask(server, "INFO persistence")
        _check(answer)
        facts = dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
        if facts["aof_rewrite_in_progress"] == facts["aof_rewrite_scheduled"] == "0":
            return facts
        time.sleep(_POLL_S)


def _is_running_already(answer: str) -> bool:
    """Whether Redis refused a rewrite because it rewrites the file now."""
    return answer.startswith("-") and "in progress" in answer


def _check(answer: str) -> None:
    """Refuse an error of Redis. Raises: StateFailed."""
    if answer.startswith("-"):
        raise StateFailed(f"Redis refuses to rewrite its file ({answer[1:]}); see its log")


def _ask(server: BufferedRWPair, command: str) -> str:
    """The answer to a command, an error with its minus sign."""
    server.write(f"{command}\r\n".encode())
    server.flush()
    line = server.readline().decode().rstrip()
    if not line:
        raise ConnectionError
    # `$-1` stands for no value, as where SET with NX found one.
    if not line.startswith("$") or line == "$-1":
        return line
    return server.read(int(line[1:]) + len(b"\r\n")).decode()
