"""Runs `python -m app.keys`: makes, lists, rotates and revokes API keys while the service runs.

It needs Redis; the web server and workers need not run. A token is printed once; only its SHA-256
is kept. Web servers know a change within two seconds. Each change is a line of JSON on stderr. Web
servers log it, too, because the output of this command may be lost.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import redis

from contract.api_keys import SCOPES, ApiKey, NotAKey, new_key
from contract.logs import configure_logging, get_logger
from contract.service_clock import CLOCK
from contract.settings import SettingsInvalid, load_settings
from contract.store.connection.broker import connect
from contract.store.connection.broker_guard import describe_to_operator
from contract.store.key_store import KeyStore

log = get_logger(__name__)

EX_FAILED, EX_USAGE = 1, 2
_DAY_S = 86_400


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code, 0 when it was done."""
    parsed = _parser().parse_args(arguments)
    try:
        settings = load_settings()
        if parsed.command == "create" and parsed.entry:
            return _print_entry(*_created(parsed))
        with connect(settings) as client:
            CLOCK.ask(client)
            return _run(KeyStore(client), parsed)
    except (SettingsInvalid, NotAKey) as error:
        return _fail(error, EX_USAGE)
    except redis.RedisError as error:
        return _fail(describe_to_operator(error), EX_FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.keys", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key and print its token, once")
    create.add_argument("name", help="its owner: tasks, batches and quotas belong to this name")
    create.add_argument(
        "--scopes", default="score,bulk", help=f"of {','.join(SCOPES)} (default: %(default)s)"
    )
    create.add_argument("--days", type=float, help="days until it expires (default: never)")
    create.add_argument("--requests-per-minute", type=int, metavar="N")
    create.add_argument("--bytes-per-minute", type=int, metavar="N", help="bytes of work")
    create.add_argument(
        "--queue-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="largest share of the queue that its jobs may fill, and of Redis its files; "
        "above 0 and at most 1",
    )
    create.add_argument(
        "--entry",
        action="store_true",
        help="do not store it, but print the entry for EVASCORE_KEYS_FILE after the token",
    )
    commands.add_parser("list", help="print one line per key, without secrets")
    rotate = commands.add_parser("rotate", help="replace a key by a new one with the same rights")
    rotate.add_argument("key", help="ID, or the name if it has one key")
    rotate.add_argument(
        "--grace-s", type=float, default=3600, help="seconds that the old token still works"
    )
    revoke = commands.add_parser("revoke", help="delete a key, or all keys of a name")
    revoke.add_argument("key", help="ID or name")
    return parser


def _run(store: KeyStore, parsed: argparse.Namespace) -> int:
    if parsed.command == "create":
        token, key = _created(parsed)
        store.add(key)
        _log("key_created", key)
        print(token)
        return 0
    found = store.all()
    if parsed.command == "list":
        for key in found:
            print(_line(key))
        return 0
    chosen = [key for key in found if parsed.key in (key.id, key.name)]
    if not chosen:
        hint = "Keys of EVASCORE_KEYS_FILE are revoked by deleting their line."
        return _fail(f"Redis has no key {parsed.key!r}; see `list`. {hint}", EX_FAILED)
    if parsed.command == "revoke":
        print(f"{store.revoke(chosen)} revoked")
        for key in chosen:
            _log("key_revoked", key)
        return 0
    valid = [key for key in chosen if key.is_valid(CLOCK.now())]
    if len(valid) != 1:
        return _fail(f"{parsed.key!r} has {len(valid)} valid keys; give the ID of one", EX_FAILED)
    if not 0 <= parsed.grace_s < math.inf:
        raise NotAKey(f"--grace-s must be a number of seconds from 0, not {parsed.grace_s:g}")
    token, new = store.rotate(valid[0], parsed.grace_s)
    _log("key_rotated", new, old_key_id=valid[0].id)
    print(token)
    return 0


def _log(event: str, key: ApiKey, **fields: str) -> None:
    log.info(event, key_id=key.id, client=key.name, scopes=key.scopes, **fields)


def _created(parsed: argparse.Namespace) -> tuple[str, ApiKey]:
    scopes = [scope.strip() for scope in parsed.scopes.split(",")]
    for scope in scopes:
        if scope not in SCOPES:
            raise NotAKey(f"scope {scope!r} does not exist; choose from {', '.join(SCOPES)}")
    if parsed.days is not None and not 0 < parsed.days < math.inf:
        raise NotAKey(f"--days must be a number of days above 0, not {parsed.days:g}")
    return new_key(
        parsed.name,
        scopes,
        expires_at=None if parsed.days is None else CLOCK.now() + parsed.days * _DAY_S,
        requests_per_minute=parsed.requests_per_minute,
        bytes_per_minute=parsed.bytes_per_minute,
        queue_share=parsed.queue_share,
    )


def _print_entry(token: str, key: ApiKey) -> int:
    print(token)
    print(key.encode().decode())
    return 0


def _line(key: ApiKey) -> str:
    def moment(at: float | None) -> str:
        return "never" if at is None else datetime.fromtimestamp(at, UTC).isoformat("T", "seconds")

    state = "valid" if key.is_valid(CLOCK.now()) else "expired"
    return (
        f"{key.id} {key.name} {','.join(key.scopes)} {state} made={moment(key.created_at)} "
        f"expires={moment(key.expires_at)} requests/min={key.requests_per_minute or 'any'} "
        f"bytes/min={key.bytes_per_minute or 'any'} queue_share={key.queue_share:g}"
    )


def _fail(reason: object, exit_code: int) -> int:
    print(f"evascore keys: {reason}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    configure_logging("INFO", "keys")
    sys.exit(main())
