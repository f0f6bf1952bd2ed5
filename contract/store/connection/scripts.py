"""Loads the Lua scripts that Redis runs; a script may include functions from another file."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

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


def script_command(name: str, keys: Sequence[Any], args: Sequence[Any] = ()) -> tuple[Any, ...]:
    """The script `name` as a command for a pipeline; it brings its text, so it is never missing."""
    return "EVAL", script_text(name), len(keys), *keys, *args
