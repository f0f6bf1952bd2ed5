"""Makes the errors of requests that must change, and never quotes a text in them."""

import re

from contract.errors import (
    RequestInvalid,
)

# A name that cannot be anybody's text, so that an error may repeat it.
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


def invalid(detail: str, **where: str) -> RequestInvalid:
    """One error of a field (`pointer`), a query parameter (`parameter`) or a header (`header`)."""
    return invalid_fields([{"detail": detail, **where}])


def invalid_fields(errors: list[dict[str, str]]) -> RequestInvalid:
    """The error of a request with these `errors`, each with its `detail` and where it is."""
    return RequestInvalid("The request is not valid; `errors` tells what and where.", errors=errors)


def plain_name(name: str) -> str:
    """`name` if it can be no text of the sender's, else ''."""
    return name if _PLAIN_NAME.fullmatch(name) else ""
