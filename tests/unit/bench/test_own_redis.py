"""A benchmark's own Redis: one that cannot start ends the benchmark."""

import sys

import pytest

from bench import own_redis


def test_redis_that_ends_at_its_start_is_an_error(monkeypatch):
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(own_redis, "server_command", lambda **options: command)

    with pytest.raises(RuntimeError, match="with status 3; run"), own_redis.own_redis():
        pass
