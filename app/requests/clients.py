"""Finds the API key or address that stands for a client in limits and queue shares."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from flask import Request

from app.requests.access import owner
from app.service.callers import Caller
from app.service.components import service
from contract.messages import KEY_CLIENT
from contract.settings import Network

# A household or a machine gets at least a /64, and may use any address in it.
_IPV6_PREFIX_BITS = 64
# The longest address, with its zone, brackets and port. What is longer is not kept in memory.
_MAX_ADDRESS_CHARS = 96
_KEPT_ADDRESSES = 4096


def client_of(request: Request) -> str:
    """The client of `request`: `key:` and the name of its API key, or else its address.

    An address is an IPv4 address, an IPv6 /64, or '' for a Unix socket.

    The header X-Forwarded-For counts only if the peer is one of `trusted_proxies`.
    """
    if name := owner():
        return KEY_CLIENT + name
    peer = request.environ.get("REMOTE_ADDR", "")
    forwarded = request.headers.get("X-Forwarded-For", "")
    return client_behind(peer, forwarded, service().settings.proxy_networks)


def caller_of(request: Request) -> Caller:
    """Who made `request`, with the connection that it came on."""
    return Caller(client_of(request), request.environ)


def client_behind(peer: str, forwarded: str, proxies: Sequence[Network]) -> str:
    """The client at the end of the proxies that are trusted.

    Args:
        peer: the address that the connection comes from.
        forwarded: the header X-Forwarded-For, to which each proxy appends its own peer.
    """
    client = _address(peer)
    for entry in reversed(forwarded.split(",")):
        if client is None or not any(client in network for network in proxies):
            break
        before = _address(entry)
        if before is None:
            # What no proxy can have written hides nobody: the proxy itself counts.
            break
        client = before
    return _name(client)


def client_of_connection(peer: str, proxies: Sequence[Network]) -> str | None:
    """The client that opened a connection; None for a trusted proxy, which speaks for many."""
    address = _address(peer)
    if address is not None and any(address in network for network in proxies):
        return None
    return client_behind(peer, "", ())


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address that may have brackets and a port; an IPv4 address mapped into IPv6 as IPv4."""
    host = text.strip()
    return _parsed(host) if len(host) <= _MAX_ADDRESS_CHARS else None


@lru_cache(_KEPT_ADDRESSES)
def _name(client: IPv4Address | IPv6Address | None) -> str:
    if isinstance(client, IPv6Address):
        return str(IPv6Network((int(client), _IPV6_PREFIX_BITS), strict=False))
    return "" if client is None else str(client)


@lru_cache(_KEPT_ADDRESSES)
def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
