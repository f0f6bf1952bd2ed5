"""Converts between the steps of an operation and httpx; both drivers use it."""

import os
from collections.abc import Mapping
from typing import Any

import httpx

from evascore.errors import EvascoreError
from evascore.steps import Answer, Lost, Send

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE, KEY_VARIABLE = "EVASCORE_URL", "EVASCORE_API_KEY"
CONNECT_S = 5.0
WRITE_S = 60.0
# The service closes connections that were idle for 5 s; ours are gone before that.
LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=4.0)


class UrlInvalid(EvascoreError, ValueError):
    """The URL of the service is not an http or https URL."""


class KeyInvalid(EvascoreError, ValueError):
    """The API key cannot be sent in a header."""


def key_headers(api_key: str | None) -> dict[str, str]:
    """The headers that carry an API key; without one, that of EVASCORE_API_KEY if it is set.

    Raises:
        KeyInvalid: it has spaces or characters beyond ASCII.
    """
    key = os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key
    if not key:
        return {}
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise KeyInvalid(
            "The API key must be ASCII without spaces; is a line break or a quote part of it?"
        )
    return {"Authorization": f"Bearer {key}"}


def base_url(url: str | None) -> httpx.URL:
    """Parse the URL of a service; without one, that of EVASCORE_URL or the default.

    Raises:
        UrlInvalid: it is not an http or https URL with a host.
    """
    if url is None:
        url = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        parsed = httpx.URL(url.rstrip("/"))
    except (httpx.InvalidURL, TypeError, ValueError):
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UrlInvalid(
            f"The URL of the service must have http or https and a host, as in {DEFAULT_URL}."
        )
    return parsed


def check_concurrency(concurrency: int) -> None:
    """Refuse a concurrency that would never send a request.

    Raises:
        ValueError: it is below 1.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it must be at least 1")


def request_options(url: httpx.URL, send: Send, headers: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `httpx.Client.request` for a step, except the body.

    Args:
        headers: those of every request.
    """
    return {
        "method": send.method,
        "url": f"{url}{send.path}",
        "params": dict(send.params),
        "headers": {**headers, **send.headers},
        "timeout": httpx.Timeout(
            connect=CONNECT_S, read=send.read_timeout_s, write=WRITE_S, pool=send.read_timeout_s
        ),
    }


def answer_of(response: httpx.Response) -> Answer:
    """The httpx response as an `Answer`."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content)


def lost_of(error: httpx.HTTPError, url: httpx.URL) -> Lost:
    """Describe a request that got no answer; leaves out the URL's name and password."""
    where = f"{url.scheme}://{url.netloc.decode('ascii')}"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Lost(f"Cannot connect to {where}; is the service running?")
    if isinstance(error, httpx.TimeoutException):
        return Lost(f"{where} did not answer within the time limit.")
    return Lost(f"The connection to {where} was lost ({type(error).__name__}).")
