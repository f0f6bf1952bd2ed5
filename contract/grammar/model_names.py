"""Reads how a request names a model: `name`, or `name@fingerprint` for one exact model."""

import re
from typing import Annotated, NamedTuple

from pydantic import Field

MAX_NAME_CHARS = 96
_PART = "[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = f"{_PART}(?:/{_PART})?"
_FINGERPRINT = "[0-9a-f]{12}"
EXACT_MODEL_PATTERN = f"^{_NAME}@{_FINGERPRINT}$"
MAX_REFERENCE_CHARS = MAX_NAME_CHARS + 13
NAME_RULE = (
    f"1 to {MAX_NAME_CHARS} letters, digits, dots, hyphens or underscores, with at most one slash"
)
_NAMES = re.compile(_NAME)
_REFERENCES = re.compile(f"(?P<name>{_NAME})(?:@(?P<fingerprint>{_FINGERPRINT}))?")

ModelName = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=MAX_REFERENCE_CHARS,
        description=(
            "Model that scores: its name, or `name@fingerprint` for one exact model; "
            "/v1/models lists them. By default that of the service."
        ),
    ),
]


class ModelReference(NamedTuple):
    """A model that a request names."""

    name: str
    fingerprint: str = ""
    """The exact model; '' for the one that is current when the request is accepted."""

    def __str__(self) -> str:
        return f"{self.name}@{self.fingerprint}" if self.fingerprint else self.name


def is_model_name(name: str) -> bool:
    """Whether a model may have this name: names on the Hugging Face Hub hold one slash."""
    return len(name) <= MAX_NAME_CHARS and _NAMES.fullmatch(name) is not None


def read_reference(text: str) -> ModelReference | None:
    """Read the reference `text`; None if it has not the form of one."""
    match = _REFERENCES.fullmatch(text)
    if match is None or not is_model_name(match["name"]):
        return None
    return ModelReference(match["name"], match["fingerprint"] or "")
