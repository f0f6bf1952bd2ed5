"""Makes errors for invalid requests, which never quote the request's text."""

import re

from contract.errors import (
    RequestInvalid,
)

# A short plain name, which an error may repeat because it holds no text of the sender.
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


def invalid(detail: str, **where: str) -> RequestInvalid:
    """One error of a field (`pointer`), a query parameter (`parameter`) or a header (`header`)."""
    return invalid_fields([{"detail": detail, **where}])


def invalid_fields(errors: list[dict[str, str]]) -> RequestInvalid:
    """The error of a request with these `errors`, each with its `detail` and where it is."""
    return RequestInvalid(
        "The request is not valid; `errors` lists what is wrong and where.", errors=errors
    )


def plain_name(name: str) -> str:
    """`name` if it is short and plain, else '': it could be text of the sender."""
    return name if _PLAIN_NAME.fullmatch(name) else ""
