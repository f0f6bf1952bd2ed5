"""Makes the embedded Redis refuse writes while its disk is nearly full, so that reads still work.

With `appendfsync always` Redis ends at the first write that fails. It would die in a loop, and no
result could be read. So while there is little room it takes no writes of clients
(`min-replicas-to-write`, which no server without replicas can meet). The keys that it deletes
because they expired are then written by `everysec`, which survives a failure and loses no job.
"""

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from contract.logs import get_logger

log = get_logger(__name__)

MIN_FREE_BYTES = 64 * 1024**2
CHECK_EVERY_S = 1.0

# In the order of setting them: at no time is a write of a client accepted under `everysec`.
REFUSES_WRITES = {"min-replicas-to-write": "1", "appendfsync": "everysec"}
TAKES_WRITES = {"appendfsync": "always", "min-replicas-to-write": "0"}


def options_for(data_dir: Path) -> Mapping[str, str]:
    """Return the options of the server for the room that the disk has now."""
    return REFUSES_WRITES if is_nearly_full(data_dir) else TAKES_WRITES


def is_nearly_full(data_dir: Path) -> bool:
    """Tell whether the disk of `data_dir` has too little room for writes."""
    return shutil.disk_usage(data_dir).free < MIN_FREE_BYTES


async def guard(data_dir: Path, server: Path) -> None:
    """Adapt the server behind the Unix socket `server` to the room on its disk, until cancelled.

    The options are sent at each check, because the server may have been restarted meanwhile.
    """
    was_nearly_full, is_away = False, False
    while True:
        try:
            nearly_full, is_away = is_nearly_full(data_dir), False
        except OSError as error:
            # A network disk may come back. Until then the server keeps its options.
            if not is_away:
                log.error("disk_not_read", folder=str(data_dir), error=str(error))
            is_away = True
        else:
            await configure(server, REFUSES_WRITES if nearly_full else TAKES_WRITES)
            if nearly_full != was_nearly_full:
                log.warning(
                    "disk_nearly_full" if nearly_full else "disk_has_room", folder=str(data_dir)
                )
            was_nearly_full = nearly_full
        await asyncio.sleep(CHECK_EVERY_S)


async def configure(server: Path, options: Mapping[str, str]) -> None:
    """Set options of the running server, in order; one that does not answer is left alone."""
    with suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(server)
        try:
            for name, value in options.items():
                writer.write(f"CONFIG SET {name} {value}\r\n".encode())
                if await reader.readline() != b"+OK\r\n":
                    return
        finally:
            writer.close()
