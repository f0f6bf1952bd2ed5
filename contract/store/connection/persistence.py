"""Reads the state of Redis' append-only file, and the time of its last backup."""

from dataclasses import dataclass

from contract import keys
from contract.store.connection.readings import Reading


@dataclass(frozen=True, slots=True)
class Persistence:
    """The append-only file of Redis, and its last backup."""

    is_on: bool
    """Whether there is an append-only file."""
    is_write_ok: bool
    """Whether the last write to it succeeded."""
    is_rewrite_ok: bool
    """Whether the last rewrite of it succeeded."""
    num_bytes: int
    """Its size; 0 where Redis reports none."""
    backup_at: float | None
    """When the last backup was stored: Unix time, seconds; 0 if each failed; None if unknown."""


def ask_persistence() -> Reading[Persistence]:
    """Both; a hosted Redis may report less."""
    info, backup_at = yield [("INFO", "persistence"), ("GET", keys.LAST_BACKUP)]
    return Persistence(
        is_on=bool(info.get("aof_enabled")),
        is_write_ok=info.get("aof_last_write_status", "ok") == "ok",
        is_rewrite_ok=info.get("aof_last_bgrewrite_status", "ok") == "ok",
        num_bytes=int(info.get("aof_current_size", 0)),
        backup_at=float(backup_at) if backup_at and backup_at.isdigit() else None,
    )
