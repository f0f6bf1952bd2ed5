"""Loads the Lua scripts that Redis runs; a script may include functions from another file."""

import re
from functools import cache
from pathlib import Path

import redis
from redis.commands.core import Script

LUA = Path(__file__).parents[1] / "lua"
_INCLUDE = re.compile(r"^-- include: (\w+)\n", re.MULTILINE)


@cache
def script_text(name: str, folder: Path = LUA) -> str:
    """The text of the script `name`; each line `-- include: other` becomes the file `other.lua`."""
    return _INCLUDE.sub(lambda match: script_text(match[1]), (folder / f"{name}.lua").read_text())


def register(client: redis.Redis, name: str, folder: Path = LUA) -> Script:
    """The script `name`, ready to be called on `client`."""
    return client.register_script(script_text(name, folder))
