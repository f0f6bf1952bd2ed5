"""Reads format versions of what is stored in Redis; separates what is too new from what is broken.

A format has a major and a minor number. Readers drop fields that they do not know, so a field may
be added with a new minor number. A new major number says that older readers must not read it.
"""

from typing import Any, NamedTuple, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError


class Version(NamedTuple):
    """The version of a format."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class Unreadable(ValueError):
    """Stored bytes are not what they must be; `reason` is a code, the message shows no content."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class NewerFormat(Exception):
    """A newer release wrote this, with the major number `major`; this release must not read it."""

    def __init__(self, major: int) -> None:
        super().__init__(f"format {major} is newer than this release")
        self.major = major


def read_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises: Unreadable."""
    try:
        found = orjson.loads(raw)
    except ValueError:
        # Not chained: the parser's error quotes what it read.
        raise Unreadable("not_json", "It is not JSON.") from None
    if not isinstance(found, dict):
        raise Unreadable("not_an_object", "It is JSON but no object.")
    return found


def check_version(fields: dict[str, Any], known: Version) -> None:
    """Check that a reader of `known` may read an object; without a version it is of release 0.1.

    Raises:
        Unreadable: the version is none.
        NewerFormat: its major number is higher than that of `known`.
    """
    major, _, minor = str(fields.get("version", known)).partition(".")
    if not (major.isdecimal() and (minor or "0").isdecimal()) or len(major) > 9:
        raise Unreadable("wrong_version", "Its version is not of the form 1.0.")
    if int(major) > known.major:
        raise NewerFormat(int(major))


_Form = TypeVar("_Form")


def validated(form: TypeAdapter[_Form], found: dict[str, Any]) -> _Form:
    """Take the fields that `form` has. Raises: Unreadable, which names those that are wrong."""
    try:
        return form.validate_python(found)
    except ValidationError as error:
        raise Unreadable("wrong_fields", f"Wrong or missing: {wrong_fields(error)}.") from None


def wrong_fields(error: ValidationError) -> str:
    """The names of the fields that are wrong or missing, without values; '' if all of it is."""
    places = {".".join(map(str, each["loc"])) for each in error.errors(include_input=False)}
    return ", ".join(sorted(places - {""}))
