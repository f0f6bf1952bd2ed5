"""Reads API keys from a file.

It imports no client of Redis, because Gunicorn reads its configuration before gevent replaces the
blocking functions of Python.
"""

from pathlib import Path

from contract.api_keys import ApiKey, NotAKey, decode_key
from contract.setting_refusals import environment_name
from contract.settings import Settings, SettingsInvalid


def read_keys_file(path: Path) -> list[ApiKey]:
    """The keys of a file with one entry per line, as `python -m app.keys create --entry` prints it.

    Raises:
        NotAKey: with the number of the line.
        OSError
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(decode_key(line))
        except NotAKey as error:
            raise NotAKey(f"line {number} of {path} is not an API key: {error}") from None
    return found


def check_keys_file(settings: Settings) -> None:
    """Check that the file of keys, if there is one, can be used.

    Raises:
        SettingsInvalid
    """
    name, path = environment_name("keys_file"), settings.keys_file
    if path is None:
        return
    try:
        read_keys_file(path)
    except NotAKey as error:
        raise SettingsInvalid(f"{name}: {error}") from None
    except OSError as error:
        raise SettingsInvalid(
            f"{name}: {path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
