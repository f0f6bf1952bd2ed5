"""Redis over TLS, as workers on other machines reach it: encrypted, and its certificate checked."""

import asyncio
import ssl
import subprocess
import threading

import pytest
import redis
from kombu.exceptions import OperationalError

from contract.settings import load_settings
from contract.store.connection.broker import connect
from contract.store.connection.celery_app import create_celery


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that nobody but its owner trusts, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", folder / "key", "-out", folder / "certificate", "-days", "2"),
            *("-subj", "/CN=evascore", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def tls_port(certificate, redis_server):
    """A port that speaks TLS and leads to the test's Redis."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate", certificate / "key")
    loop = asyncio.new_event_loop()

    async def forward(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", redis_server.port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = loop.run_until_complete(asyncio.start_server(forward, "127.0.0.1", ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


async def pump(reader, writer):
    """Hand on what comes until one side has gone."""
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()


def ping(settings):
    """One answer over the store's connection and one over Celery's."""
    with connect(settings) as client:
        assert client.ping()
    with create_celery(settings).connection() as connection:
        assert connection.default_channel.client.ping()


def test_trusted_certificate_lets_all_connections_through(certificate, tls_port):
    url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate / 'certificate'}"
    ping(load_settings({"EVASCORE_REDIS_URL": url}))


def test_untrusted_certificate_is_refused_by_every_connection(tls_port):
    settings = load_settings({"EVASCORE_REDIS_URL": f"rediss://127.0.0.1:{tls_port}/0"})
    with connect(settings) as client, pytest.raises(redis.ConnectionError, match="CERTIFICATE"):
        client.ping()
    with (
        create_celery(settings).connection() as connection,
        pytest.raises(OperationalError, match="CERTIFICATE"),
    ):
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)


def test_what_the_url_asks_of_the_certificate_is_kept():
    url = "rediss://127.0.0.1:6380/0?ssl_cert_reqs=none"
    assert load_settings({"EVASCORE_REDIS_URL": url}).redis == url
