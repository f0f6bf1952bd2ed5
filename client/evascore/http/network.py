"""Chooses the proxy and the certificates for a service from the variables of the shell.

httpx reads the same variables. But it sends text for this machine to a proxy, and ends in a
traceback where a variable is wrong. One client talks to one URL, so both are chosen once.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from socket import inet_aton
from typing import Any

import httpx

from evascore.errors import EvascoreError

_PORTS = {"http": 80, "https": 443}
_WITH_PORT = re.compile(r"(\[.+\]|[^:]+):(\d+)")


class NetworkInvalid(EvascoreError, ValueError):
    """A variable of the shell names a proxy or certificates that cannot be used."""


@dataclass(frozen=True, slots=True)
class Network:
    """How to reach the URL of a service."""

    proxy: httpx.Proxy | None = None
    via: str = ""
    """Names the proxy and the variable that it comes from; empty without one."""
    verify: ssl.SSLContext | None = None
    """The trusted certificates; None where nothing is encrypted."""

    def options(self) -> dict[str, Any]:
        """The arguments of an httpx client."""
        # Without certificates every TLS connection fails; none is made.
        verify = self.verify or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return {"proxy": self.proxy, "verify": verify, "trust_env": False}


def network_for(
    url: httpx.URL,
    variables: Mapping[str, str],
    proxies: Mapping[str, str],
    proxy_headers: Mapping[str, str],
) -> Network:
    """Choose the proxy and the certificates for a URL.

    Args:
        variables: those of the shell.
        proxies: URLs of proxies by scheme, and the exceptions as `no`: `urllib.request.getproxies`.
        proxy_headers: headers for the proxy alone.

    Raises:
        NetworkInvalid: a variable that is needed is wrong; the message says how to mend it.
    """
    given = proxies.get(url.scheme) or proxies.get("all") or ""
    if not given or is_loopback(url.host) or is_exempt(url, proxies.get("no", "")):
        return Network(verify=_certificates(variables) if url.scheme == "https" else None)
    source = _source(url.scheme, given, variables)
    proxy = _parsed(given, source)
    is_encrypted = "https" in (url.scheme, proxy.scheme)
    verify = _certificates(variables) if is_encrypted else None
    where = f"{proxy.scheme}://{proxy.netloc.decode('ascii')}"
    made = httpx.Proxy(
        proxy,
        headers=dict(proxy_headers),
        ssl_context=verify if proxy.scheme == "https" else None,
    )
    return Network(made, f"the proxy {where} ({source})", verify)


def parsed_url(given: str) -> httpx.URL:
    """Parse a URL, the name of its host included.

    Raises:
        ValueError: it is not valid, or a label of the name is empty or too long.
    """
    try:
        url = httpx.URL(given)
    except (httpx.InvalidURL, TypeError):
        raise ValueError("not a URL") from None
    # What reading `host` and resolving the name would find out.
    if url.host:
        url.raw_host.decode("ascii").encode("idna")
    return url


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address alone."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """Whether NO_PROXY excepts a URL: names with their subdomains, addresses, networks, or `*`."""
    host, port = url.host.rstrip(".").lower(), url.port or _PORTS[url.scheme]
    return any(_matches(host, port, entry.lower()) for entry in re.split(r"[,\s]+", no_proxy))


def _matches(host: str, port: int, entry: str) -> bool:
    entry = entry.rpartition("://")[2]
    if with_port := _WITH_PORT.fullmatch(entry):
        entry = with_port[1]
        if int(with_port[2]) != port:
            return False
    if entry == "*":
        return True
    address = _address(host)
    if address is not None:
        try:
            return address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            return False
    name = entry.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(name: str) -> IPv4Address | IPv6Address | None:
    """The IP address that a host is, also in the short forms that resolvers take (127.1)."""
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        try:
            return IPv4Address(inet_aton(name))
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _source(scheme: str, given: str, variables: Mapping[str, str]) -> str:
    """Where the URL of a proxy comes from."""
    for name in (f"{scheme}_proxy", "all_proxy"):
        for spelled in (name, name.upper()):
            if variables.get(spelled) == given:
                return f"variable {spelled}"
    return "settings of this system"


def _parsed(given: str, source: str) -> httpx.URL:
    """The URL of a proxy.

    Raises:
        NetworkInvalid: it cannot be used. The message omits the URL, which may hold a password.
    """
    remedy = f"Correct it, unset it, or except the service with NO_PROXY ({source})."
    try:
        url = parsed_url(given if "://" in given else f"http://{given}")
    except ValueError:
        raise NetworkInvalid(f"The URL of the proxy is not valid. {remedy}") from None
    if not url.host or url.scheme not in ("http", "https", "socks5", "socks5h"):
        raise NetworkInvalid(
            "The URL of the proxy must have a host and one of http, https, socks5 and socks5h."
            f" {remedy}"
        )
    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise NetworkInvalid(
            "A SOCKS proxy needs the package socksio. Install it with `pip install socksio`, unset"
            f" the proxy, or except the service with NO_PROXY ({source})."
        )
    return url


def _certificates(variables: Mapping[str, str]) -> ssl.SSLContext:
    """The trusted certificates: those that the variables name, or those that httpx brings.

    Raises:
        NetworkInvalid: a variable names none.
    """
    file, folder = variables.get("SSL_CERT_FILE"), variables.get("SSL_CERT_DIR")
    if file:
        return _loaded("SSL_CERT_FILE", "a readable file of certificates in PEM form", cafile=file)
    if folder:
        if not Path(folder).is_dir():
            raise NetworkInvalid(_wrong("SSL_CERT_DIR", "a folder of certificates"))
        return _loaded("SSL_CERT_DIR", "a folder of certificates", capath=folder)
    try:
        return httpx.create_ssl_context(trust_env=False)
    except OSError:
        raise NetworkInvalid(_wrong("SSLKEYLOGFILE", "a file that can be written")) from None


def _loaded(
    variable: str, needed: str, *, cafile: str | None = None, capath: str | None = None
) -> ssl.SSLContext:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile, capath)
    except OSError:
        raise NetworkInvalid(_wrong(variable, needed)) from None
    try:
        return ssl.create_default_context(cafile=cafile, capath=capath)
    except OSError:
        raise NetworkInvalid(_wrong("SSLKEYLOGFILE", "a file that can be written")) from None


def _wrong(variable: str, needed: str) -> str:
    return f"The variable {variable} must name {needed}. Correct it, or unset it."
