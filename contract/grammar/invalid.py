"""Makes the errors of wrong requests; no error quotes a text of the sender."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from contract.errors import RequestInvalid

MAX_ERRORS_SHOWN = 10
# A name that cannot be anybody's text, so that an error may repeat it.
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


def invalid(detail: str, **where: str) -> RequestInvalid:
    """Make one error: of a field (`pointer`), a query `parameter` or a `header`."""
    return invalid_fields([{"detail": detail, **where}])


def invalid_fields(errors: Sequence[Mapping[str, str]]) -> RequestInvalid:
    """Make the error of a request from `errors`, each with its `detail` and its place."""
    return RequestInvalid(
        "The request is not valid; `errors` lists what is wrong and where.", errors=errors
    )


def plain_name(name: str) -> str:
    """Return `name` if it is a plain identifier, else '': a long name could be a text."""
    return name if _PLAIN_NAME.fullmatch(name) else ""


def _spelling(name: str) -> str:
    """Return the name as every convention spells it: `topK`, `Top-K` and `top_k` are `topk`."""
    return re.sub(r"[-_ ]", "", name[:64]).lower()


# Names that other services give to what a field holds here; the first that exists is suggested.
_NAMES_ELSEWHERE = {
    "content": ("text",),
    "document": ("text",),
    "id": ("custom_id",),
    "input": ("text",),
    "inputs": ("items", "text"),
    "prompt": ("text", "context"),
    "texts": ("items", "text"),
}


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Say that a field is not known, and which one of the `known` was probably meant."""
    found = suggestion(name, known)
    if not found and not plain_name(name):
        # The error repeats no such name, so it says how the names of fields look.
        found = "; field names are lowercase, and /docs/ lists them"
    return f"is not a known field{found}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the known name that is nearest to `name`, or ''."""
    names = list(known)
    spelled = {_spelling(each): each for each in names}.get(_spelling(name))
    if spelled:
        return f"; did you mean {spelled}?"
    # A name that could be a text is not even compared: the suggestion would reveal it.
    if not plain_name(name):
        return ""
    elsewhere = [each for each in _NAMES_ELSEWHERE.get(name, ()) if each in names]
    close = elsewhere or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
