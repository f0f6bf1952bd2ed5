"""Raises the limit of open files, so that it allows the connections of the settings."""

import resource

# For Redis, the log, the modules and a few spare ones.
OTHER_FILES = 128


def connections_within_limit(wanted: int) -> int:
    """How many connections this process may have open; at most `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - OTHER_FILES)
