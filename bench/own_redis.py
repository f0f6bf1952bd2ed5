"""Starts a Redis with an empty data folder for one benchmark."""

import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from deploy.embedded_redis import free_port, server_command

_POLL_S = 0.02


@contextmanager
def own_redis() -> Iterator[str]:
    """Yield the URL of a Redis that answers, with the settings of `make run`; end it afterwards.

    Raises:
        RuntimeError: the server ended at its start.
    """
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = server_command(port=port, data_dir=Path(folder))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                url = f"redis://127.0.0.1:{port}/0"
                _wait_for(url, server, command)
                yield url
            finally:
                server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes], command: Sequence[str]) -> None:
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if server.poll() is not None:
                    raise RuntimeError(
                        f"Redis ended at its start with status {server.returncode}; run "
                        f"{shlex.join(command)} to see why"
                    ) from None
                time.sleep(_POLL_S)
