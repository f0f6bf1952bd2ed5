"""Converts between the steps of an operation and httpx; both drivers use it."""

import os
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.request import getproxies

import httpx

from evascore.errors import EvascoreError
from evascore.http.network import Network, network_for, parsed_url
from evascore.operations.steps import REQUEST_ID, Answer, Lost, Send

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE, KEY_VARIABLE = "EVASCORE_URL", "EVASCORE_API_KEY"
CONNECT_S = 5.0
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# A proxy that refuses a connection says so as "407 Proxy Authentication Required".
_PROXY_STATUS = re.compile(r"\d{3}\b")
WRITE_S = 60.0
# 0.1.0 of the service closes connections that were idle for 5 s; ours are gone before that.
LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=4.0)
# Last parts of addresses that people copy from a browser or a curl command.
ROUTES = frozenset({"batches", "completions", "docs", "info", "readyz", "score", "stats", "status"})


class UrlInvalid(EvascoreError, ValueError):
    """The URL of the service is not an http or https URL."""


class KeyInvalid(EvascoreError, ValueError):
    """The API key cannot be sent in a header."""


class HeaderInvalid(EvascoreError, ValueError):
    """A header cannot be sent."""


def client_headers(
    url: httpx.URL, api_key: str | None, headers: Mapping[str, str] | None
) -> dict[str, str]:
    """The headers of every request; their names are in lower case.

    Args:
        url: that of the service.
        api_key: as for `Client`.
        headers: those of the caller.

    Raises:
        KeyInvalid, HeaderInvalid: one cannot be sent.
    """
    given = {name.lower(): _checked_header(name, value) for name, value in (headers or {}).items()}
    if "authorization" in given:
        if api_key:
            raise HeaderInvalid("Give either api_key or the header Authorization, not both.")
        _check_one_authorization(url, "the header Authorization in headers")
        return given
    of_key = _key_headers(api_key)
    if of_key:
        _check_one_authorization(url, KEY_VARIABLE if api_key is None else "api_key")
    return {**of_key, **given}


def _check_one_authorization(url: httpx.URL, source: str) -> None:
    """Check that the URL does not set the header Authorization, which `source` sets, too.

    httpx would send the name and the password of the URL alone.

    Raises:
        HeaderInvalid: the URL has a name or a password.
    """
    if url.userinfo:
        raise HeaderInvalid(
            f"The name and the password in the URL, and {source}, both set the header"
            " Authorization. Remove one of them."
        )


def _checked_header(name: str, value: str) -> str:
    """Return the value of a header.

    Raises:
        HeaderInvalid: it cannot be sent. The message leaves out the value, which may be a secret.
    """
    if not _HEADER_NAME.fullmatch(name):
        raise HeaderInvalid("The name of a header must be ASCII letters, digits and dashes.")
    if not (value.isascii() and value.isprintable()):
        raise HeaderInvalid(f"The value of the header {name} must be printable ASCII.")
    return value.strip()


def _key_headers(api_key: str | None) -> dict[str, str]:
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
    return {"authorization": f"Bearer {key}"}


def kept_from_pickles(
    url: httpx.URL, api_key: str | None, headers: Mapping[str, str] | None, http: object
) -> str:
    """What keeps a client from being pickled; empty if nothing does.

    A pickle may lie on a disk, so it holds no secret. Connections cannot be in it.
    """
    kept = {
        "an httpx client of its own": http is not None,
        "an api_key, which would be readable in the pickle": bool(api_key),
        "headers, which would be readable in the pickle": bool(headers),
        "a password in its URL, which would be readable in the pickle": bool(url.userinfo),
    }
    return next((what for what, is_there in kept.items() if is_there), "")


def base_url(url: str | None) -> httpx.URL:
    """Parse the URL of a service; without one, that of EVASCORE_URL or the default.

    Raises:
        UrlInvalid: it is not an http or https URL with a host.
    """
    if url is None:
        url = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        parsed = parsed_url(url.rstrip("/"))
    except ValueError:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UrlInvalid(
            f"The URL of the service must have http or https and a host, as in {DEFAULT_URL}."
        )
    prefix, _, last = parsed.path.rpartition("/")
    if last in ROUTES:
        raise _not_base(parsed, f"ends in /{last}, which is a route of it", prefix)
    if "?" in url or "#" in url:
        raise _not_base(parsed, "may have no query or fragment (? or #)", parsed.path)
    return parsed


def _not_base(url: httpx.URL, what: str, path: str) -> UrlInvalid:
    """The error of a URL that has more than that of the service; names the URL that is meant."""
    meant = url.copy_with(path=path or "/", query=None, fragment=None, userinfo=b"")
    return UrlInvalid(f"The URL of the service {what}; did you mean {str(meant).rstrip('/')}?")


def network_of(url: httpx.URL, headers: Mapping[str, str]) -> Network:
    """Choose the proxy and the certificates for the service from the variables of the shell.

    Args:
        headers: those of every request; those named `Proxy-...` are for the proxy.

    Raises:
        NetworkInvalid: a variable that is needed is wrong.
    """
    return network_for(url, os.environ, getproxies(), _of_the_proxy(headers))


def _of_the_proxy(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("proxy-")}


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
        headers: those of every request; those named `Proxy-...` are not for the service.
    """
    of_step = {name.lower(): value for name, value in send.headers.items()}
    named = {name: headers[name] for name in headers.keys() & {REQUEST_ID}}
    of_proxy = _of_the_proxy(headers)
    of_client = {name: value for name, value in headers.items() if name not in of_proxy}
    return {
        "method": send.method,
        "url": f"{url}{send.path}",
        "params": dict(send.params),
        "headers": {**of_client, **of_step, **named},
        "timeout": httpx.Timeout(
            connect=min(CONNECT_S, send.limit_s),
            read=send.read_timeout_s,
            write=min(WRITE_S, send.limit_s),
            pool=send.read_timeout_s,
        ),
    }


def answer_of(response: httpx.Response, via: str = "") -> Answer:
    """The httpx response as an `Answer`.

    Args:
        via: names the proxy that it came through.
    """
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content, via)


def is_lost(error: Exception) -> bool:
    """Whether an error of httpx, or of socksio under it, means that there is no answer."""
    return isinstance(error, httpx.RequestError) or type(error).__module__.startswith("socksio")


def lost_of(error: Exception, url: httpx.URL, via: str = "") -> Lost:
    """Describe a request that got no answer; leaves out the URL's name and password.

    Args:
        via: names the proxy that the request was sent through.
    """
    where = f"{url.scheme}://{url.netloc.decode('ascii')}"
    tls_error = _tls_error(error)
    if isinstance(tls_error, ssl.SSLCertVerificationError):
        reason = f"The certificate of {where} is not trusted ({tls_error.verify_message})"
        remedy = "name its issuer in a file with the variable SSL_CERT_FILE"
        return Lost(f"{reason}; {remedy}.", says_remedy=True)
    is_of_socks = not isinstance(error, httpx.RequestError)
    is_unconnected = isinstance(error, httpx.ProxyError | httpx.ConnectError | httpx.ConnectTimeout)
    if via and (is_of_socks or is_unconnected):
        remedy = "Check it, unset it, or except the service with NO_PROXY."
        refusal = f" ({error})" if _PROXY_STATUS.match(str(error)) else ""
        return Lost(f"Cannot connect to {where} through {via}{refusal}. {remedy}", says_remedy=True)
    # A connection that stood may be lost with an error of TLS, too.
    if tls_error is not None and isinstance(error, httpx.ConnectError):
        reason = f"The TLS handshake with {where} failed ({tls_error.reason or 'no answer'})"
        remedy = f"give http://{url.netloc.decode('ascii')}"
        return Lost(
            f"{reason}. If the service uses plain HTTP, as `make run` does, {remedy}.",
            says_remedy=True,
        )
    way = f" through {via}" if via else ""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Lost(f"Cannot connect to {where}; is the service running?")
    if isinstance(error, httpx.TimeoutException):
        return Lost(f"{where} did not answer within the time limit{way}.")
    return Lost(f"The connection to {where}{way} was lost ({type(error).__name__}).")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of TLS that an error of httpx comes from."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error
