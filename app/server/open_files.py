"""Raises the limit of open files, so that it allows the connections of the settings."""

import resource

from contract.logs import get_logger
from contract.setting_refusals import environment_name
from contract.settings import Settings, SettingsInvalid

log = get_logger(__name__)

# For Redis, the log, the modules and a few spare ones.
OTHER_FILES = 128
# The least that EVASCORE_WEB_CONNECTIONS may say.
MIN_CONNECTIONS = 16


def with_possible_connections(settings: Settings) -> Settings:
    """The settings with as many connections as this process may open.

    What may wait, stream and upload is a share of them.

    Raises:
        SettingsInvalid: the limit of open files leaves too few.
    """
    wanted = settings.web_connections
    possible = connections_within_limit(wanted)
    if possible == wanted:
        return settings
    if possible < MIN_CONNECTIONS:
        raise SettingsInvalid(
            f"the hard limit of open files allows {max(possible, 0)} connections, and "
            f"{MIN_CONNECTIONS} are needed; raise it to {wanted + OTHER_FILES} for the "
            f"{wanted} of {environment_name('web_connections')}"
        )
    return settings.model_copy(update={"web_connections": possible})


def warn_of_fewer_connections(wanted: int, possible: int) -> None:
    """Log that the limit of open files allows fewer connections than the setting asks for."""
    if possible < wanted:
        log.warning(
            "open_files_limit_connections",
            connections=possible,
            wanted_connections=wanted,
            needed_open_files=wanted + OTHER_FILES,
        )


def connections_within_limit(wanted: int) -> int:
    """How many connections this process may have open; at most `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - OTHER_FILES)
