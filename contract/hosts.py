"""Reads host names and web origins from settings, and compares them with request headers."""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

# Names that every machine resolves to itself. No name server of an attacker can change that.
LOOPBACK_NAMES = ("localhost", "*.localhost")
_MAX_NAME_CHARS = 253
# Underscores too: the names of containers may have them.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5})?)?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Each request has one of few Host headers.
_KEPT_HOSTS = 256


@dataclass(frozen=True, slots=True)
class Host:
    """A host as a Host header names it."""

    name: str
    """A name in small letters, or an IP address without brackets."""
    port: int | None
    is_address: bool


@lru_cache(_KEPT_HOSTS)
def parse_host(header: str) -> Host | None:
    """Return the host of a Host header, None if the header is malformed."""
    found = _HOST.fullmatch(header)
    if found is None:
        return None
    bracketed = found["name"].startswith("[")
    name = found["name"].strip("[]").lower()
    if bracketed:
        is_valid = _is_address(name) and isinstance(ip_address(name), IPv6Address)
    else:
        name = name.removesuffix(".")
        is_valid = _is_name(name)
    port = int(found["port"]) if found["port"] else None
    if not is_valid or (port is not None and port >= 65_536):
        return None
    return Host(name, port, _is_address(name))


def is_listed(name: str, listed: tuple[str, ...]) -> bool:
    """Whether a host name is one of `listed`; `*.example.org` lists the names below example.org."""
    return any(
        name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern
        for pattern in listed
    )


def is_origin_of(origin: str, host: Host) -> bool:
    """Whether a page of `origin` came from `host`; the scheme is not compared.

    A proxy may have ended TLS, so this process does not know the scheme of the page.
    """
    scheme, _, rest = origin.partition("://")
    default, theirs = _DEFAULT_PORTS.get(scheme), parse_host(rest)
    return (
        default is not None
        and theirs is not None
        and (theirs.name, theirs.port or default) == (host.name, host.port or default)
    )


def read_host_names(listed: str) -> tuple[str, ...]:
    """Return the names of a setting, separated by commas or spaces. Raises: ValueError."""
    names = tuple(name.lower().removesuffix(".") for name in _split(listed))
    for name in names:
        plain = name.removeprefix("*.")
        if not _is_name(plain):
            raise ValueError(
                "must list host names without scheme and port, as scores.example.org or "
                f"*.example.org, not {name[:60]!r}"
            )
    return names


def read_origins(listed: str) -> frozenset[str]:
    """Return the origins of a setting, separated by commas or spaces. Raises: ValueError."""
    return frozenset(_origin(origin) for origin in _split(listed))


def _origin(given: str) -> str:
    """An origin as browsers send it: in small letters, without the default port."""
    scheme, _, rest = given.lower().partition("://")
    host = parse_host(rest)
    if scheme not in _DEFAULT_PORTS or host is None:
        raise ValueError(
            f"must list origins as https://app.example.org, without a path, not {given[:60]!r}"
        )
    return f"{scheme}://{rest.removesuffix(f':{_DEFAULT_PORTS[scheme]}')}"


def _split(listed: str) -> list[str]:
    names = [name for name in re.split(r"[,\s]+", listed) if name]
    if not names:
        raise ValueError("must not be empty; list at least one, or unset it for the default")
    return names


def _is_name(name: str) -> bool:
    return len(name) <= _MAX_NAME_CHARS and _NAME.fullmatch(name) is not None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
