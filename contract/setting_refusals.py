"""Writes the error messages for settings: unknown names, former names and bad values."""

import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic.fields import FieldInfo

PREFIX = "EVASCORE_"
# Of a value in an error message.
MAX_SHOWN_CHARS = 60
_UNITS = {"_bytes": " (bytes)", "_s": " (seconds)"}
_TEXTS = {
    "model_revision": "a commit, tag or branch of the Hub",
    "worker_name": "1 to 64 letters, digits, dots, hyphens or underscores",
}

# Former names of settings, and what took their place.
RENAMED = {
    "batch_bytes": "micro_batch_bytes",
    "batch_texts": "micro_batch_texts",
    "batch_timeout_s": "micro_batch_timeout_s",
    "batch_deadline_s": "max_upload_deadline_s",
    "max_batch_bytes": "max_upload_bytes",
    "max_batch_lines": "max_upload_lines",
    "scratch_dir": "cache_dir",
    "web_threads": "web_connections",
}
# Former settings that now follow from another one.
DERIVED = {
    "max_continuations": "max_items",
    "max_streams": "web_connections",
    "max_uploads": "web_connections",
    "max_waiters": "web_connections",
    "upload_ttl_s": "web_timeout_s",
}


def environment_name(field: str) -> str:
    """The environment variable that sets `field`."""
    return PREFIX + field.upper()


def accepted_values(name: str, field: FieldInfo) -> str:
    """Say in words what a setting can be: its type, range and unit."""
    kind: object = field.annotation
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if kind is bool:
        return "yes or no"
    if kind not in (int, float):
        return _TEXTS.get(name, "text")
    bounds = [
        f" {word} {getattr(bound, sign)}"
        for sign, word in (("ge", "from"), ("gt", "above"), ("le", "to"))
        for bound in field.metadata
        if hasattr(bound, sign)
    ]
    unit = next((words for end, words in _UNITS.items() if name.endswith(end)), "")
    return ("an integer" if kind is int else "a number") + "".join(bounds) + unit


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """Refuse a name that is no setting, with the name that is meant."""
    if name in DERIVED:
        source = environment_name(DERIVED[name])
        return (
            f"{environment_name(name)} was removed: evascore derives its value from {source}; "
            f"set {source} instead"
        )
    near = difflib.get_close_matches(name, known, n=1)
    close = [RENAMED[name]] if name in RENAMED else near
    hint = f"did you mean {environment_name(close[0])}?" if close else "see docs/settings.md"
    return f"{environment_name(name)} is not a setting; {hint}"


def bad_value(error: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> str:
    """Refuse a value, from what pydantic found wrong with it; a secret is never shown."""
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
    else:
        # Only checks of our own see secrets, and their messages hold none.
        name, given = str(error["loc"][0]), repr(error["input"])
        accepted = accepted_values(name, fields[name])
        reason = f"must be {accepted}, not {given[:MAX_SHOWN_CHARS]}"
        if not error["input"]:
            reason = f"must not be empty; give {accepted}, or unset it for the default"
    return ": ".join([*(environment_name(str(name)) for name in error["loc"]), reason])
