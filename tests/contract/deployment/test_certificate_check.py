"""The check of docs/docker.md notices a certificate that ends soon or is not trusted."""

import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contract.settings import REPOSITORY
from deploy.embedded_redis import free_port

DOCUMENT = (REPOSITORY / "docs/docker.md").read_text()
CHECK = re.search(r"^openssl s_client .*?(?=```)", DOCUMENT, re.MULTILINE | re.DOTALL)[0]
NAME = re.search(r"-servername (\S+)", CHECK)[1]


def certificate(folder: Path, name: str, days: int) -> Path:
    """Make a certificate for `name`, and its key beside it, as the document does."""
    made = folder / "tls.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days)),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", folder / "tls.key", "-out", made),
        ],
        check=True,
        capture_output=True,
    )
    return made


@contextmanager
def served(made: Path) -> Iterator[int]:
    """A server with this certificate; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, made.with_suffix(".key"))
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def passes(port: int, trusted: Path) -> bool:
    """Whether the check of the document passes against a port of this machine."""
    command = CHECK.replace(f"{NAME}:443", f"127.0.0.1:{port}")
    assert command != CHECK
    variables = {"PATH": "/usr/bin:/bin", "SSL_CERT_FILE": str(trusted), "SSL_CERT_DIR": "/none"}
    ended = subprocess.run(["sh", "-c", command], env=variables, capture_output=True, timeout=60)
    return ended.returncode == 0


@pytest.mark.parametrize(
    ("name", "days", "is_fine"),
    [(NAME, 15, True), (NAME, 13, False), ("other.example.org", 90, False)],
    ids=["two weeks are left", "ends within two weeks", "of another name"],
)
def test_check_passes_only_with_a_certificate_that_clients_trust(tmp_path, name, days, is_fine):
    made = certificate(tmp_path, name, days)
    with served(made) as port:
        assert passes(port, trusted=made) == is_fine


def test_check_fails_for_a_certificate_that_nobody_trusts(tmp_path):
    made = certificate(tmp_path, NAME, 90)
    with served(made) as port:
        assert not passes(port, trusted=Path("/dev/null"))


def test_check_fails_where_nothing_answers(tmp_path):
    assert not passes(free_port(), trusted=certificate(tmp_path, NAME, 90))
