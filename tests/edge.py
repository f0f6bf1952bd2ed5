"""The edge of the containers: a real nginx with deploy/nginx/nginx.conf, without TLS."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from contract.settings import REPOSITORY
from tests.conftest import wait_until
from tests.web import free_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONF = (REPOSITORY / "deploy/nginx/nginx.conf").read_text()


@dataclass(frozen=True)
class Edge:
    """A running edge."""

    port: int
    folder: Path
    process: psutil.Process

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    def logs(self) -> bytes:
        """What it has logged."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob("*.log")))

    def files(self) -> bytes:
        """The content of its files, also of those that it has deleted and holds open."""
        return b"\n".join([*_contents(self.folder.rglob("*")), *_contents(self._open_files())])

    def _open_files(self) -> Iterator[Path]:
        for process in [self.process, *self.process.children()]:
            for path in Path(f"/proc/{process.pid}/fd").glob("*"):
                with suppress(OSError):
                    if str(self.folder) in os.readlink(path):
                        yield path


def _contents(paths: Iterator[Path]) -> Iterator[bytes]:
    for path in paths:
        # A request that ends takes its file with it.
        with suppress(OSError):
            if path.is_file():
                yield path.read_bytes()


@contextmanager
def nginx(folder: Path, conf: str, port: int) -> Iterator[psutil.Process]:
    """An nginx with this configuration, once it listens on `port`."""
    file = folder / "nginx.conf"
    # Its workers must enter the folders of the tests.
    file.write_text(f"user root;\n{conf}" if os.geteuid() == 0 else conf)
    command = [str(NGINX), "-p", str(folder), "-e", "stderr", "-c", str(file)]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen([*command, "-g", "daemon off;"], stdout=log, stderr=log)
    try:
        wait_until(lambda: _is_open(process, port), timeout_s=30)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _is_open(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "nginx has ended; see nginx.log"
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def edge(web_url: str, folder: Path) -> Iterator[Edge]:
    """The edge before the web server at `web_url`."""
    port = free_port()
    conf = re.sub(r"^ +(ssl_\w+|http2|resolver\w*) .*;\n", "", CONF, flags=re.MULTILINE)
    for theirs, ours in {
        "listen 8443 ssl": f"listen 127.0.0.1:{port}",
        "listen 8080": f"listen 127.0.0.1:{free_port()}",
        "listen 127.0.0.1:8081": f"listen 127.0.0.1:{free_port()}",
        "http://web:8000": web_url,
        "/tmp/": f"{folder}/",
        "access_log /dev/stdout refused": f"access_log {folder}/access.log refused",
        "error_log /dev/stderr": f"error_log {folder}/error.log",
    }.items():
        assert theirs in conf
        conf = conf.replace(theirs, ours)
    shutil.copy(REPOSITORY / "deploy/nginx/problem.conf", folder)
    # The container writes it at its start.
    (folder / "server_name.conf").write_text("server_name localhost 127.0.0.1;")
    with nginx(folder, conf, port) as process:
        yield Edge(port, folder, process)
