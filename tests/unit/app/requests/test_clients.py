"""The client of a request: its address, or what a trusted proxy says."""

from ipaddress import ip_network

import pytest
from flask import Flask, request

from app.factory import create_app
from app.requests.clients import client_behind, client_of
from contract.settings import load_settings

PROXIES = [ip_network("10.0.0.0/8"), ip_network("2001:db8:ff::1/128")]


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::6", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
    ],
)
def test_client_is_the_address_of_the_peer(peer, client):
    assert client_behind(peer, "", ()) == client


@pytest.mark.parametrize("proxies", [(), PROXIES], ids=["none", "others"])
def test_header_of_an_untrusted_peer_is_ignored(proxies):
    assert client_behind("192.0.2.7", "198.51.100.1", proxies) == "192.0.2.7"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8:ff::1", "2001:db8:1:2::9", "2001:db8:1:2::/64"),
        # The client wrote the first entry itself.
        ("10.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8:1:2::9]:4711", "2001:db8:1:2::/64"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, garbage", "10.0.0.1"),
    ],
)
def test_last_untrusted_entry_behind_a_trusted_proxy_is_the_client(peer, forwarded, client):
    assert client_behind(peer, forwarded, PROXIES) == client


@pytest.fixture
def app():
    made = create_app(load_settings({"EVASCORE_TRUSTED_PROXIES": "192.0.2.1, 10.0.0.0/8"}))
    yield made
    made.extensions["evascore"].changes.close()


def test_setting_names_the_trusted_proxies(app: Flask):
    header = {"X-Forwarded-For": "198.51.100.1"}
    for peer, client in [("192.0.2.1", "198.51.100.1"), ("192.0.2.2", "192.0.2.2")]:
        with app.test_request_context(headers=header, environ_base={"REMOTE_ADDR": peer}):
            assert client_of(request) == client
