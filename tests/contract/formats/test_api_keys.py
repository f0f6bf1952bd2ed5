"""API keys: tokens are checked and not kept; keys end, rotate and are revoked."""

import re
import subprocess
import sys
import time
from dataclasses import replace

import orjson
import pytest

from contract import keys
from contract.api_keys import (
    NotAKey,
    check_key,
    decode_key,
    id_of_token,
    is_token_of,
    new_key,
)
from contract.keys_file import read_keys_file
from contract.setting_refusals import environment_name
from contract.settings import REPOSITORY
from contract.store.key_store import KeyStore
from contract.task_ids import is_owned_by, is_task_id, new_task_id

SECRET = b"s" * 32


@pytest.fixture
def command(redis_server, redis_client):
    """Run the command on the test's Redis; exit code, lines, error."""
    # `env` adds to what the tests themselves run with.
    program = ["env", f"{environment_name('redis_url')}={redis_server.url}", sys.executable]

    def run(*arguments: str) -> tuple[int, list[str], str]:
        ran = subprocess.run(
            [*program, "-m", "app.keys", *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout.splitlines(), ran.stderr

    return run


def test_token_belongs_to_its_key_alone():
    (token, key), (other, _) = new_key("a", ["score"]), new_key("a", ["score"])
    assert id_of_token(token) == key.id
    assert is_token_of(token, key)
    assert not is_token_of(other, key)
    assert not is_token_of(token[:-1], key)
    assert not is_token_of(token, None)
    assert len(token.rpartition("_")[0]) < len(token)
    assert len(set(token)) > 10


@pytest.mark.parametrize(
    "text", ["", "evs_", "evs_0_0", "Bearer x", "evs_é", "\udcff", "x" * 10**5]
)
def test_text_that_is_no_token_belongs_to_no_key(text):
    assert id_of_token(text) is None
    assert not is_token_of(text, new_key("a", ["score"])[1])


def test_no_token_is_kept():
    token, key = new_key("a", ["score"])
    secret = token.split("_", 2)[2]
    assert secret not in key.encode().decode()
    assert decode_key(key.encode()) == key
    later = orjson.dumps({**orjson.loads(key.encode()), "colour": 7})
    assert decode_key(later) == key


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "x" * 65}, "64"),
        ({"scopes": ()}, "scope"),
        ({"sha256": "0"}, "64"),
        ({"requests_per_minute": 0}, "at least 1, not 0"),
        ({"bytes_per_minute": -1}, "at least 1, not -1"),
        ({"queue_share": 0}, "not 0"),
        ({"queue_share": 1.5}, "not 1.5"),
        ({"queue_share": float("nan")}, "not nan"),
        ({"expires_at": float("nan")}, "not nan"),
        ({"expires_at": float("inf")}, "not inf"),
        ({"expires_at": -1.0}, "not -1"),
        ({"expires_at": 1e300}, "not 1e+300"),
    ],
)
def test_wrong_values_are_named(changes, said):
    _, key = new_key("a", ["score"])
    with pytest.raises(NotAKey, match=re.escape(said)):
        check_key(replace(key, **changes))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"id": 7}', b"\xff"])
def test_what_is_no_entry_is_refused(raw):
    with pytest.raises(NotAKey, match="wrong or missing"):
        decode_key(raw)


def test_key_is_made_listed_rotated_and_revoked(command, redis_client):
    made = command("create", "alice", "--scopes", "score,metrics", "--requests-per-minute", "60")
    assert made[0] == 0
    (token,) = made[1]
    store = KeyStore(redis_client)
    (key,) = store.all()
    assert is_token_of(token, key)
    assert (key.scopes, key.requests_per_minute) == (("score", "metrics"), 60)
    exit_code, (line,), _ = command("list")
    assert exit_code == 0
    assert line.startswith(f"{key.id} alice score,metrics valid")
    assert token not in line
    assert key.sha256 not in line

    (new_token,) = command("rotate", "alice", "--grace-s", "100")[1]
    old, new = store.all()
    assert is_token_of(new_token, new)
    assert not is_token_of(token, new)
    assert 90 < old.expires_at - time.time() <= 100
    assert (new.expires_at, new.scopes, new.requests_per_minute) == (None, key.scopes, 60)
    assert command("rotate", "alice")[0] == 1  # two are valid: which one?
    assert command("revoke", old.id)[1] == ["1 revoked"]
    assert command("revoke", "alice")[1] == ["1 revoked"]
    assert command("list")[1] == []
    exit_code, lines, err = command("revoke", "alice")
    assert (exit_code, lines) == (1, [])
    assert "Redis has no key 'alice'" in err
    assert "EVASCORE_KEYS_FILE" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "a b"],
        ["create", "a", "--scopes", "everything"],
        ["create", "a", "--scopes", ""],
        ["create", "a", "--queue-share", "2"],
        ["create", "a", "--requests-per-minute", "0"],
        ["create", "a", "--days", "nan"],
        ["create", "a", "--days", "inf"],
        ["create", "a", "--days", "0"],
        ["create", "a", "--days", "-1"],
        ["create", "a", "--days", "1e300"],
    ],
)
def test_wrong_command_says_what_is_wrong_in_one_line(command, arguments, redis_client):
    exit_code, lines, err = command(*arguments)
    assert (exit_code, lines) == (2, [])
    assert err.startswith("evascore keys: ")
    assert err.count("\n") == 1
    assert not redis_client.exists(keys.API_KEYS)


@pytest.mark.parametrize("grace_s", ["nan", "inf", "-1", "1e300"])
def test_old_token_must_end_within_a_time(command, redis_client, grace_s):
    store = KeyStore(redis_client)
    _, key = new_key("a", ["score"])
    store.add(key)
    exit_code, lines, err = command("rotate", "a", "--grace-s", grace_s)
    assert (exit_code, lines) == (2, [])
    assert err.startswith("evascore keys: ")
    assert err.count("\n") == 1
    assert store.all() == [key]


def test_every_change_of_a_key_is_a_line_on_stderr_without_the_token(command, redis_client):
    store = KeyStore(redis_client)
    _, (token,), created = command("create", "alice", "--scopes", "score")
    (first,) = store.all()
    _, (new_token,), rotated = command("rotate", "alice")
    (second,) = (key for key in store.all() if key != first and key.id != first.id)
    _, _, revoked = command("revoke", first.id)
    lines = [orjson.loads(line) for line in (created + rotated + revoked).splitlines()]
    assert [(line["event"], line["key_id"], line["client"]) for line in lines] == [
        ("key_created", first.id, "alice"),
        ("key_rotated", second.id, "alice"),
        ("key_revoked", first.id, "alice"),
    ]
    assert lines[1]["old_key_id"] == first.id
    assert {line["process"] for line in lines} == {"keys"}
    for secret in (token, new_token, first.sha256, second.sha256):
        # Behind the ID; the secret part may itself contain an underscore.
        assert secret.split("_", 2)[-1] not in created + rotated + revoked


def test_entry_for_a_file_is_printed_and_not_stored(command, redis_client, tmp_path):
    exit_code, (token, entry), _ = command("create", "pod", "--entry", "--days", "1")
    assert exit_code == 0
    assert not redis_client.exists(keys.API_KEYS)
    file = tmp_path / "keys"
    file.write_text(f"\n{entry}\n")
    (key,) = read_keys_file(file)
    assert is_token_of(token, key)
    assert key.is_valid(time.time())
    assert not key.is_valid(time.time() + 2 * 86_400)
    file.write_text(f"{entry}\n{{}}\n")
    with pytest.raises(NotAKey, match="line 2"):
        read_keys_file(file)


def test_key_that_cannot_be_read_hides_no_other(redis_client):
    store = KeyStore(redis_client)
    _, key = new_key("a", ["score"])
    store.add(key)
    redis_client.hset(keys.API_KEYS, "broken", b"{")
    assert store.all() == [key]


def test_command_without_redis_says_so(command, redis_server):
    redis_server.kill()
    exit_code, _, err = command("list")
    assert exit_code == 1
    assert "EVASCORE_REDIS_URL" in err


def test_id_is_owned_by_the_owner_it_was_issued_to_and_by_nobody_else():
    for purpose in (b"", b"batch"):
        task_id = new_task_id(SECRET, "alice", purpose)
        assert is_task_id(SECRET, task_id, purpose)
        assert not is_task_id(SECRET, task_id, b"other")
        assert is_owned_by(SECRET, task_id, "alice")
        for other in ("", "bob", "alic", "alice2"):
            assert not is_owned_by(SECRET, task_id, other)
        assert not is_owned_by(b"t" * 32, task_id, "alice")
    for text in ("", "x", "é" * 32, task_id.upper(), "a" * 32):
        assert not is_owned_by(SECRET, text, "alice")
