"""The embedded Redis listens where only its user reaches it."""

import socket

import pytest

from contract.settings import REDIS_SOCKET, load_settings
from contract.store.connection.celery_app import celery_url
from deploy.embedded_redis import place_for_socket

# With the name of the socket, longer than any system allows.
LONG = "d" * 100


def test_socket_is_in_the_data_folder(tmp_path):
    with place_for_socket(tmp_path) as path:
        assert path == tmp_path.resolve() / REDIS_SOCKET
        assert not path.exists()


@pytest.mark.parametrize("left", ["socket", "link"])
def test_socket_of_a_run_that_was_killed_does_not_hinder(tmp_path, left):
    place = tmp_path / REDIS_SOCKET
    if left == "link":
        place.symlink_to(tmp_path / "gone" / REDIS_SOCKET)
    else:
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(place))
    with place_for_socket(tmp_path) as path:
        assert path == tmp_path.resolve() / REDIS_SOCKET


def test_path_too_long_for_a_socket_leads_to_a_private_folder(tmp_path):
    data_dir = tmp_path / LONG
    data_dir.mkdir()
    with place_for_socket(data_dir) as path:
        assert len(str(path)) < 100
        assert path.parent.stat().st_mode & 0o777 == 0o700
        # Other commands find it through the data folder.
        assert load_settings({"EVASCORE_DATA_DIR": str(data_dir)}).redis == f"unix://{path}?db=0"
    assert not path.parent.exists()
    assert not (data_dir / REDIS_SOCKET).is_symlink()


@pytest.mark.parametrize(
    ("url", "of_celery"),
    [
        ("unix:///a%20b/redis.sock?db=3", "redis+socket:///a%20b/redis.sock?virtual_host=3"),
        ("unix:///redis.sock", "redis+socket:///redis.sock?virtual_host=0"),
        ("redis://evascore@redis:6379/0", "redis://evascore@redis:6379/0"),
    ],
)
def test_celery_gets_unix_sockets_in_its_own_form(url, of_celery):
    assert celery_url(url) == of_celery
