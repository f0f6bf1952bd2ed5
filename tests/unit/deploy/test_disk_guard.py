"""A Redis on a nearly full disk reads and refuses writes; it takes them when there is room."""

import asyncio
import subprocess
from collections import namedtuple

import pytest
import redis

from deploy import disk_guard
from deploy.disk_guard import MIN_FREE_BYTES, guard, options_for
from deploy.embedded_redis import place_for_socket, server_command
from tests.conftest import wait_until

Usage = namedtuple("Usage", "free")


@pytest.fixture
def disk(monkeypatch):
    """A disk whose free bytes the test sets; None for one that cannot be read."""
    free = [MIN_FREE_BYTES]

    def usage(_: object) -> Usage:
        if free[0] is None:
            raise OSError("stale file handle")
        return Usage(free[0])

    monkeypatch.setattr(disk_guard.shutil, "disk_usage", usage)
    monkeypatch.setattr(disk_guard, "CHECK_EVERY_S", 0.02)
    return free


@pytest.fixture
def socket(redis_server):
    """The Unix socket of the test's Redis."""
    with place_for_socket(redis_server.data_dir) as path:
        redis_server.kill()
        redis_server.socket = path
        redis_server.start()
        yield path


def is_refused(client: redis.Redis) -> bool:
    try:
        return not client.set("new", "1")
    except redis.ResponseError as error:
        return "NOREPLICAS" in str(error)


def durability(client: redis.Redis) -> str:
    return client.config_get("appendfsync")["appendfsync"]


def test_nearly_full_disk_keeps_redis_reading(socket, redis_client, disk, tmp_path):
    redis_client.set("result", "kept")

    async def play() -> None:
        guarding = asyncio.create_task(guard(tmp_path, socket))
        await asyncio.sleep(0.1)
        assert not is_refused(redis_client)
        assert durability(redis_client) == "always"
        disk[0] = MIN_FREE_BYTES - 1
        await asyncio.to_thread(wait_until, lambda: is_refused(redis_client))
        assert redis_client.get("result") == b"kept"
        # The guard sets it after Redis refuses writes.
        await asyncio.to_thread(wait_until, lambda: durability(redis_client) == "everysec")
        disk[0] = MIN_FREE_BYTES
        await asyncio.to_thread(wait_until, lambda: not is_refused(redis_client))
        assert durability(redis_client) == "always"
        guarding.cancel()

    asyncio.run(play())


def test_guard_goes_on_once_a_disk_that_was_away_is_back(socket, redis_client, disk, tmp_path):
    async def play() -> None:
        guarding = asyncio.create_task(guard(tmp_path, socket))
        disk[0] = None
        await asyncio.sleep(0.1)
        assert not guarding.done()
        assert not is_refused(redis_client)
        disk[0] = MIN_FREE_BYTES - 1
        await asyncio.to_thread(wait_until, lambda: is_refused(redis_client))
        guarding.cancel()

    asyncio.run(play())


def test_redis_that_starts_on_a_nearly_full_disk_takes_no_write(redis_server, disk, tmp_path):
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("result", "kept")
    redis_server.kill()
    disk[0] = 0
    command = server_command(
        port=redis_server.port, data_dir=redis_server.data_dir, options=options_for(tmp_path)
    )
    redis_server.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with redis.Redis.from_url(redis_server.url) as client:

        def kept() -> bool:
            try:
                return client.get("result") == b"kept"
            except redis.ConnectionError:
                return False

        wait_until(kept)
        assert is_refused(client)
