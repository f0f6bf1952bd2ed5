"""Keeps the memory of a process out of core dumps, which would hold texts."""

import resource


def forbid_core_dumps() -> None:
    """Let the kernel write no core dump of this process and of those that it starts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
