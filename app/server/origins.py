"""Refuses foreign hosts and requests of foreign web pages; sets the CORS headers.

A page of another site can send requests to a service on this machine. With DNS rebinding, its own
host name leads here, and it reads the answers too. The Host header then has the name of that site.
"""

from functools import partial

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest

from contract.errors import MisdirectedRequest, OriginNotAllowed
from contract.hosts import LOOPBACK_NAMES, Host, is_listed, is_origin_of, parse_host
from contract.setting_refusals import environment_name
from contract.settings import Settings

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Request headers that the routes read. Clients of OpenAI's API always send Authorization.
CORS_REQUEST_HEADERS = (
    *("Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "Last-Event-ID"),
    *("Prefer", "X-Request-Id"),
)
# Answer headers that a page of another origin may read; browsers hide all others.
CORS_ANSWER_HEADERS = (
    *("Idempotency-Replayed", "Link", "Location", "Next-After", "Preference-Applied"),
    *("RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-Id"),
)
# How long a browser may remember a preflight.
PREFLIGHT_S = 600


def register(app: Flask, settings: Settings) -> None:
    """Check host and origin of every request of `app`, and set the CORS headers."""
    hosts = (*LOOPBACK_NAMES, settings.host.lower(), *settings.allowed_host_names)
    app.before_request(partial(_check, hosts, settings.allowed_origins))
    if settings.allowed_origins:
        app.after_request(partial(_add_cors_headers, settings.allowed_origins))


def _check(hosts: tuple[str, ...], origins: frozenset[str]) -> None:
    host = _checked_host(hosts)
    if request.method not in SAFE_METHODS:
        _check_origin(host, origins)


def _checked_host(hosts: tuple[str, ...]) -> Host | None:
    """The host that was asked for, None if HTTP/1.0 named none.

    Raises:
        BadRequest: the Host header is malformed, or HTTP/1.1 came without one.
        MisdirectedRequest: it names a host that is not ours.
    """
    header = request.environ.get("HTTP_HOST")
    if header is None:
        if request.environ["SERVER_PROTOCOL"] == "HTTP/1.0":
            return None
        raise BadRequest
    host = parse_host(header)
    if host is None:
        raise BadRequest
    # Rebinding needs a name: no page can come from an address that is not its server's.
    if not (host.is_address or is_listed(host.name, hosts)):
        raise MisdirectedRequest(
            f"The host {host.name} is not served here; use localhost or an IP address, or add the "
            f"name to {environment_name('allowed_hosts')}."
        )
    return host


def _check_origin(host: Host | None, origins: frozenset[str]) -> None:
    """Refuse what changes something for a page of another site. Raises: OriginNotAllowed."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin in origins:
        return
    is_ours = origin is None or (host is not None and is_origin_of(origin, host))
    # `none` is a person, not a page. Programs send neither header.
    if not is_ours or site not in (None, "same-origin", "none"):
        raise OriginNotAllowed(
            "The request comes from a web page of another origin; add that origin to "
            f"{environment_name('cors_origins')}. A proxy in front must keep the Host header."
        )


def _add_cors_headers(origins: frozenset[str], response: Response) -> Response:
    response.vary.add("Origin")
    origin = request.headers.get("Origin")
    if origin not in origins:
        return response
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = ", ".join(CORS_ANSWER_HEADERS)
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
        response.headers["Access-Control-Allow-Headers"] = ", ".join(CORS_REQUEST_HEADERS)
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)
    return response
