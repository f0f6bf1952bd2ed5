"""Reads which page of results a query asks for."""

from typing import NamedTuple

from app.requests.query import Query
from contract.grammar.invalid import invalid
from contract.grammar.numbers import parse_whole

DEFAULT_PAGE_LINES, MAX_PAGE_LINES = 1000, 10_000


class Page(NamedTuple):
    """Consecutive lines of results."""

    after: int
    """Number of lines before the page."""
    limit: int
    """Most lines of the page."""


def take_page(query: Query) -> Page:
    """Take `after` and `limit` out of a query.

    Raises:
        RequestInvalid
    """
    after = _count(query, "after", default=0, lowest=0)
    limit = _count(query, "limit", default=DEFAULT_PAGE_LINES, lowest=1)
    return Page(after, min(limit, MAX_PAGE_LINES))


def _count(query: Query, name: str, *, default: int, lowest: int) -> int:
    given = query.poplist(name)
    if not given:
        return default
    try:
        (count,) = map(parse_whole, given)
    except ValueError:
        count = -1
    if count < lowest:
        raise invalid(f"must be one whole number from {lowest}", parameter=name)
    return count
