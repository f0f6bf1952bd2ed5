"""The proxy and the certificates that a client takes from the variables of the shell."""

import ssl

import httpx
import pytest

from deploy.embedded_redis import free_port
from evascore import AsyncClient, Client, ServiceError, ServiceUnreachable, UnexpectedAnswer
from evascore.http.network import NetworkInvalid, is_exempt, is_loopback, network_for
from evascore.http.transport import (
    HeaderInvalid,
    UrlInvalid,
    base_url,
    client_headers,
    is_lost,
    lost_of,
    request_options,
)
from evascore.operations.retrying import failure
from evascore.operations.steps import Answer, Send

PROXY = "http://name:password@proxy.test:3128"


@pytest.fixture(autouse=True)
def bare_shell(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)


def chosen(url, **variables):
    proxies = {
        name.lower().removesuffix("_proxy"): value
        for name, value in variables.items()
        if name.lower().endswith("_proxy")
    }
    return network_for(httpx.URL(url), variables, proxies, {})


LOOPBACK = [
    "http://localhost:8000",
    "http://LOCALHOST",
    "http://localhost.:1",
    "http://eva.localhost",
    "http://127.0.0.1",
    "http://127.8.9.10:80",
    "http://127.1",
    "http://2130706433",
    "http://[::1]:8000",
    "http://[0:0:0:0:0:0:0:1]",
    "http://[::ffff:127.0.0.1]",
    "http://0.0.0.0:8000",
    "https://127.0.0.1",
    "https://localhost",
]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("url", LOOPBACK)
def test_text_for_this_machine_goes_through_no_proxy(url, name):
    assert is_loopback(httpx.URL(url).host)
    network = chosen(url, **{name: PROXY})
    assert (network.proxy, network.via) == (None, "")


@pytest.mark.parametrize(
    "host", ["localhost.test", "notlocalhost", "128.0.0.1", "10.0.0.1", "::2", "fe80::1", "a.test"]
)
def test_another_machine_is_not_this_one(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "variables", "expected"),
    [
        ("http://a.test", {"HTTP_PROXY": PROXY}, "HTTP_PROXY"),
        ("http://a.test", {"http_proxy": PROXY}, "http_proxy"),
        ("http://a.test", {"HTTPS_PROXY": PROXY}, None),
        ("https://a.test", {"HTTPS_PROXY": PROXY}, "HTTPS_PROXY"),
        ("https://a.test", {"ALL_PROXY": PROXY}, "ALL_PROXY"),
        ("http://a.test", {"all_proxy": PROXY, "http_proxy": "http://b:1"}, "http_proxy"),
        ("http://a.test", {"HTTP_PROXY": "proxy.test:3128"}, "HTTP_PROXY"),
        ("http://a.test", {"HTTP_PROXY": ""}, None),
        ("http://a.test", {"HTTP_PROXY": PROXY, "NO_PROXY": "a.test"}, None),
        ("http://a.test", {"HTTP_PROXY": PROXY, "NO_PROXY": "::1/128,b.test"}, "HTTP_PROXY"),
    ],
)
def test_another_machine_is_reached_through_the_proxy_of_its_scheme(url, variables, expected):
    network = chosen(url, **variables)
    assert (network.proxy is None) == (expected is None)
    assert "password" not in network.via
    assert network.via.endswith(f"(variable {expected})" if expected else "")


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("http://a.test", "*", True),
        ("http://a.test", "b.test, a.test", True),
        ("http://a.test", "b.test a.test", True),
        ("http://A.Test.", "a.TEST", True),
        ("http://x.a.test", "a.test", True),
        ("http://x.a.test", ".a.test", True),
        ("http://x.a.test", "*.a.test", True),
        ("http://xa.test", "a.test", False),
        ("http://a.test", "a.test:80", True),
        ("http://a.test:8000", "a.test:80", False),
        ("https://a.test", "a.test:443", True),
        ("http://a.test", "http://a.test", True),
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://10.1.2.3", "10.1.2.3", True),
        ("http://10.1.2.3:80", "10.1.2.3:80", True),
        ("http://10.1.2.3", "::1/128", False),
        ("http://10.1.2.3", "2.3", False),
        ("http://[fd00::5]", "fd00::/8", True),
        ("http://[fd00::5]:80", "[fd00::5]:80", True),
        ("http://[fd00::5]", "[fd00::5]", True),
        ("http://a.test", "::1/128", False),
        ("http://a.test", "10.0.0.0/99,%%,[,:,.", False),
        ("http://a.test", "", False),
    ],
)
def test_no_proxy_excepts_names_addresses_and_networks(url, no_proxy, expected):
    assert is_exempt(httpx.URL(url), no_proxy) is expected


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("socks5://proxy.test:1", "needs the package socksio"),
        ("socks5h://proxy.test:1", "needs the package socksio"),
        ("socks4://proxy.test:1", "one of http, https, socks5"),
        ("ftp://proxy.test:1", "one of http, https, socks5"),
        ("http://", "must have a host"),
        ("http://secret:b@c:port", "not valid"),
        ("http://secret..test", "not valid"),
    ],
)
@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_proxy_that_cannot_be_used_is_reported_with_its_variable(
    make, given, complaint, monkeypatch
):
    monkeypatch.setenv("ALL_PROXY", given)
    monkeypatch.setattr("evascore.http.network.find_spec", lambda name: None)
    with pytest.raises(NetworkInvalid) as raised:
        make("http://a.test")
    message = str(raised.value)
    assert complaint in message
    assert "variable ALL_PROXY" in message
    assert "secret" not in message
    make("http://127.0.0.1:1")


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_missing_certificates_are_reported_with_their_variable(
    name, content, monkeypatch, tmp_path
):
    path = tmp_path / "certificates"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(name, str(path))
    for make in (Client, AsyncClient):
        with pytest.raises(NetworkInvalid, match=f"The variable {name} must name"):
            make("https://a.test")
        make("http://a.test")


def test_key_log_that_cannot_be_written_is_reported_with_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "missing" / "keys"))
    with pytest.raises(NetworkInvalid, match="The variable SSLKEYLOGFILE"):
        Client("https://a.test")


def test_certificates_of_the_shell_are_the_trusted_ones(tmp_path):
    network = network_for(httpx.URL("https://a.test"), {"SSL_CERT_DIR": str(tmp_path)}, {}, {})
    assert network.verify.get_ca_certs() == []
    assert network.verify.verify_mode == ssl.CERT_REQUIRED
    usual = network_for(httpx.URL("https://a.test"), {}, {}, {})
    assert len(usual.verify.get_ca_certs()) > 10
    # Never used; were it used, no certificate would be trusted.
    plain = network_for(httpx.URL("http://a.test"), {}, {}, {}).options()["verify"]
    assert (plain.verify_mode, plain.get_ca_certs()) == (ssl.CERT_REQUIRED, [])


def test_proxy_that_does_not_answer_is_named(monkeypatch):
    port = free_port()
    monkeypatch.setenv("HTTP_PROXY", f"http://name:password@127.0.0.1:{port}")
    with (
        Client("http://a.test", patience_s=0) as client,
        pytest.raises(ServiceUnreachable) as raised,
    ):
        client.get("/info")
    message = str(raised.value)
    assert f"through the proxy http://127.0.0.1:{port} (variable HTTP_PROXY)" in message
    assert "NO_PROXY" in message
    assert "password" not in message


def test_proxy_that_refuses_a_connection_is_named_with_its_answer():
    error = httpx.ProxyError("407 Proxy Authentication Required")
    reason = lost_of(
        error, httpx.URL("https://a.test"), "the proxy p (variable HTTPS_PROXY)"
    ).reason
    assert "the proxy p (variable HTTPS_PROXY) (407 Proxy Authentication Required)" in reason


def test_error_of_socks_under_httpx_is_an_error_of_the_proxy():
    error = type("ProtocolError", (Exception,), {"__module__": "socksio.exceptions"})("Malformed")
    assert is_lost(error)
    reason = lost_of(error, httpx.URL("http://a.test"), "the proxy p").reason
    assert "Cannot connect to http://a.test through the proxy p." in reason
    assert not is_lost(ValueError("ours"))


def client_of_gzip(content):
    """A client whose service answers each request with `content`, and calls it gzip."""

    def answer(_):
        return httpx.Response(200, headers={"content-encoding": "gzip"}, content=content)

    http = httpx.Client(transport=httpx.MockTransport(answer))
    return Client("http://a.test", patience_s=0, http=http)


def test_answer_that_cannot_be_decompressed_is_no_answer():
    with client_of_gzip(b"abc") as client, pytest.raises(ServiceUnreachable, match="was lost"):
        client.info()


def test_empty_answer_that_is_called_gzip_is_not_one_of_evascore():
    with client_of_gzip(b"") as client, pytest.raises(UnexpectedAnswer):
        client.info()


@pytest.mark.parametrize("status", [403, 407, 502, 503])
def test_answer_of_a_proxy_itself_names_the_proxy(status):
    error = failure(Answer(status, {"content-type": "text/html"}, b"", "the proxy p"))
    assert f"HTTP status {status} through the proxy p" in str(error)
    assert "NO_PROXY" in str(error)
    assert "proxy" not in str(failure(Answer(status, {}, b"")))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_reported_as_that(status):
    error = failure(Answer(status, {"location": "https://name:secret@host/"}, b""))
    assert "it redirects: give the URL that it leads to" in str(error)
    assert "secret" not in str(error)


def test_certificate_that_is_not_trusted_is_reported_as_that():
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    error = httpx.ConnectError("failed")
    error.__cause__ = cause
    reason = lost_of(error, httpx.URL("https://a.test")).reason
    assert "not trusted (self-signed certificate)" in reason
    assert "SSL_CERT_FILE" in reason


def test_service_without_tls_is_reported_as_that():
    cause = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    cause.reason = "WRONG_VERSION_NUMBER"
    error = httpx.ConnectError("failed")
    error.__cause__ = cause
    lost = lost_of(error, httpx.URL("https://user:secret@a.test:8000/at"))
    begin = "The TLS handshake with https://a.test:8000 failed (WRONG_VERSION_NUMBER)."
    assert lost.reason.startswith(begin)
    assert lost.reason.endswith("give http://a.test:8000.")
    assert lost.says_remedy
    assert not lost_of(httpx.ConnectError("refused"), httpx.URL("https://a.test")).says_remedy


def test_connection_that_ends_with_an_error_of_tls_is_lost():
    error = httpx.ReadError("failed")
    error.__cause__ = ssl.SSLError(8, "EOF occurred in violation of protocol")
    assert "was lost (ReadError)" in lost_of(error, httpx.URL("https://a.test")).reason


def test_headers_go_to_the_service_and_those_of_the_proxy_to_the_proxy():
    url = httpx.URL("http://a.test")
    given = client_headers(url, None, {"X-Team": "blue", "Proxy-Authorization": "Basic abc"})
    send = Send("POST", "/score", 1, headers={"Content-Type": "application/json"})
    options = request_options(url, send, given)
    assert options["headers"] == {"x-team": "blue", "content-type": "application/json"}
    proxies = {"http": PROXY}
    network = network_for(httpx.URL("http://a.test"), {}, proxies, {"proxy-authorization": "B c"})
    assert network.proxy.headers["Proxy-Authorization"] == "B c"


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ({"X Team": "secret"}, "The name of a header"),
        ({"X-Team": "secret\r\nX: y"}, "the header X-Team must be printable ASCII"),
        ({"X-Team": "secret\ty"}, "the header X-Team must be printable ASCII"),
        ({"X-Team": "secretü"}, "the header X-Team must be printable ASCII"),
        ({"Authorization": "secret"}, "Give either api_key or the header Authorization"),
    ],
)
def test_header_that_cannot_be_sent_is_refused_without_its_value(headers, complaint):
    with pytest.raises(HeaderInvalid, match=complaint) as raised:
        Client("http://a.test", api_key="key", headers=headers)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("user", ["secret:secret", "secret", ":secret"])
@pytest.mark.parametrize(
    ("options", "of_shell", "source"),
    [
        ({"api_key": "secret"}, "", "api_key"),
        ({}, "secret", "EVASCORE_API_KEY"),
        ({"headers": {"authorization": "secret"}}, "secret", "the header Authorization in headers"),
    ],
)
@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_password_in_the_url_that_would_replace_the_key_is_refused(
    make, options, of_shell, source, user, monkeypatch
):
    monkeypatch.setenv("EVASCORE_API_KEY", of_shell)
    with pytest.raises(HeaderInvalid, match="in the URL") as raised:
        make(f"http://{user}@a.test", **options)
    message = str(raised.value)
    assert source in message
    assert "Remove one of them" in message
    assert "secret" not in message


def test_password_in_the_url_is_sent_if_there_is_no_key(monkeypatch):
    monkeypatch.setenv("EVASCORE_API_KEY", "key")
    seen = []

    def answer(request):
        seen.append(request.headers["authorization"])
        return httpx.Response(503)

    http = httpx.Client(transport=httpx.MockTransport(answer))
    with (
        Client("http://name:password@a.test", api_key="", patience_s=0, http=http) as client,
        pytest.raises(ServiceError),
    ):
        client.get("/info")
    assert seen == ["Basic bmFtZTpwYXNzd29yZA=="]


@pytest.mark.parametrize("url", ["http://host:1/#texts=ab", "http://host:1?a=b", "http://host:1/#"])
def test_url_of_a_page_is_refused_with_that_of_the_service(url):
    with pytest.raises(UrlInvalid, match=r"did you mean http://host:1\?") as raised:
        base_url(url)
    assert "texts" not in str(raised.value)
