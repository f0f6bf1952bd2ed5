"""Checks the API key of a request, its scope, and the owner of the task or batch."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from flask import Flask, Response, g, request

from app.service.components import service
from app.service.quotas import current_key, rate_limit_headers
from contract.api_keys import ApiKey, Scope
from contract.errors import Forbidden, JobNotFound, Unauthorized

# The scope that the routes of a blueprint need. All others are open: pages, documents and what
# says that the service is alive hold nothing of anyone. So do the routes of the tokenizer, to which
# lm-eval sends no key.
_SCOPES: dict[str, Scope] = {
    "jobs": "score",
    "events": "score",
    "completions": "score",
    "batches": "bulk",
    "files": "bulk",
    "openai_batches": "bulk",
    "metrics": "metrics",
}
_SCOPES_OF_ROUTES: dict[str, Scope] = {
    "health.stats": "metrics",
    "events.follow_batch": "bulk",
}
_Item = TypeVar("_Item")

_BEARER = "Bearer "
_IDS = ("task_id", "batch_id", "file_id")


def register(app: Flask) -> None:
    """Check every request of `app`, unless the settings say that anyone may do everything."""
    app.before_request(_check)
    app.after_request(_add_quota_headers)


def scope_of(endpoint: str) -> Scope | None:
    """The scope that a route needs; None if it is open to anyone.

    Args:
        endpoint: blueprint and view function, as Flask names it.
    """
    return _SCOPES_OF_ROUTES.get(endpoint) or _SCOPES.get(endpoint.partition(".")[0])


def owner() -> str:
    """The name of the key of this request; '' where no key is needed."""
    key = current_key()
    return "" if key is None else key.name


def _add_quota_headers(response: Response) -> Response:
    response.headers.update(rate_limit_headers())
    return response


def _check() -> None:
    # A browser sends no key with a preflight, and its answer shows nothing of anyone.
    if service().settings.auth == "off" or request.method == "OPTIONS":
        return
    scope = scope_of(request.endpoint or "")
    if scope is None:
        return
    key = service().key_ring.find(_token())
    g.api_key = key
    _check_scope(key, scope)
    _check_owner()


def _check_scope(key: ApiKey, scope: Scope) -> None:
    if not key.allows(scope):
        raise Forbidden(
            f"This request needs the scope {scope}; this key has {', '.join(key.scopes)}.",
            scope=scope,
        )


def key_check() -> Callable[[], None]:
    """Return a function that checks the key of this request again, also when the request is over.

    The function raises Unauthorized or Forbidden. Without a key it does nothing.
    """
    scope = scope_of(request.endpoint or "")
    if current_key() is None or scope is None:
        return lambda: None
    ring, token, needed = service().key_ring, _token(), scope
    return lambda: _check_scope(ring.find(token), needed)


def while_valid(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items of a long request while its key is valid.

    Raises:
        Unauthorized, Forbidden: the key was revoked or changed, or has expired; also at the end.
    """
    check = key_check()
    for item in items:
        check()
        yield item
    check()


def _token() -> str:
    given = request.headers.get("Authorization", "")
    if not given:
        raise Unauthorized("Send an API key in the header `Authorization: Bearer evs_...`.")
    if given[: len(_BEARER)].lower() != _BEARER.lower():
        raise Unauthorized("The header Authorization must be `Bearer` and an API key.")
    return given[len(_BEARER) :].strip()


def check_owned(asked: str) -> None:
    """Treat the task, batch or file of another owner as one that does not exist.

    Raises:
        JobNotFound
    """
    if service().settings.auth == "off":
        return
    # The ID of results holds that of their batch behind a dash.
    if not service().jobs.is_owned_by(asked.rpartition("-")[2], owner()):
        raise JobNotFound("This ID was never issued to your key; check it for typing errors.")


def _check_owner() -> None:
    for name in _IDS:
        asked = (request.view_args or {}).get(name)
        if asked is not None:
            check_owned(asked)
