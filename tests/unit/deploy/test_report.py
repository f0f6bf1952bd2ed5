"""The commands that `make run` shows to a newcomer."""

import pytest

from deploy.report import DEFAULT_URL, curl_of, next_steps, shell_command
from evascore.http import transport


def test_command_of_the_client_is_named_where_it_is_installed(tmp_path):
    (tmp_path / "evascore").touch()
    assert shell_command(DEFAULT_URL, tmp_path) == f'{tmp_path}/evascore score "Any text."'


def test_command_of_the_client_comes_with_its_installation_where_it_is_missing(tmp_path):
    assert shell_command(DEFAULT_URL, tmp_path).startswith(f"{tmp_path}/pip install ./client && ")


def test_another_url_is_part_of_the_command(tmp_path):
    assert " --url http://[::1]:9000 " in shell_command("http://[::1]:9000", tmp_path)


def test_client_and_service_have_the_same_default():
    assert transport.DEFAULT_URL == DEFAULT_URL


@pytest.mark.parametrize("has_keys", [False, True])
def test_command_has_a_key_where_requests_need_one(has_keys):
    assert ("$EVASCORE_API_KEY" in curl_of(DEFAULT_URL, has_keys=has_keys)) == has_keys


@pytest.mark.parametrize("has_keys", [False, True])
def test_start_shows_how_to_make_a_key_where_requests_need_one(tmp_path, has_keys):
    rows = dict(next_steps(DEFAULT_URL, tmp_path, has_keys=has_keys))
    assert ("$EVASCORE_API_KEY" in rows["try"]) == has_keys
    command = f"{tmp_path}/python -m app.keys create NAME" if has_keys else None
    assert rows.get("key") == command
