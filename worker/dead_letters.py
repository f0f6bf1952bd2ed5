"""Runs `python -m worker.dead_letters`: lists, drops and requeues what could not be read.

It needs Redis alone, no model, and runs beside the service. It shows no content.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import redis

from contract.grammar.counts import counted
from contract.settings import SettingsInvalid, load_settings
from contract.store.connection.broker import connect
from contract.store.connection.broker_guard import describe_to_operator
from contract.store.queue.dead_letters import DeadLetter, DeadLetters, NotRequeued

EX_FAILED, EX_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code, 0 when all of it was done."""
    parsed = _parser().parse_args(arguments)
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        return _fail(error, EX_USAGE)
    try:
        with connect(settings) as client:
            letters = DeadLetters(client, settings)
            if parsed.command == "list":
                return _list(letters.letters())
            return _for_each(letters, parsed.command, parsed.ids, is_all=parsed.all)
    except redis.RedisError as error:
        return _fail(describe_to_operator(error), EX_FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker.dead_letters", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print one line per dead letter, oldest first")
    for name, meaning in (
        ("drop", "delete dead letters and their bytes"),
        ("requeue", "put messages back into the queue, and make failed jobs wait again"),
    ):
        command = commands.add_parser(name, help=meaning)
        chosen = command.add_mutually_exclusive_group(required=True)
        chosen.add_argument("ids", nargs="*", default=[], metavar="ID", help="as `list` prints it")
        chosen.add_argument("--all", action="store_true", help="all dead letters")
    return parser


def _list(letters: Iterable[DeadLetter]) -> int:
    for each in letters:
        moment = datetime.fromtimestamp(each.at, UTC).isoformat(timespec="seconds")
        task_id = each.task_id or "-"
        size = counted(each.num_bytes, "byte")
        print(f"{each.id} {moment} {each.kind} {each.reason} {size} {task_id}")
    return 0


def _for_each(letters: DeadLetters, command: str, ids: Sequence[str], *, is_all: bool) -> int:
    found = {each.id: each for each in letters.letters()}
    exit_code = 0
    for letter_id in found if is_all else ids:
        letter = found.get(letter_id)
        try:
            if letter is None:
                raise NotRequeued("there is no such dead letter; see `list`")
            if command == "drop":
                letters.drop([letter_id])
            else:
                letters.requeue(letter)
        except NotRequeued as reason:
            exit_code = _fail(f"{letter_id}: {reason}", EX_FAILED)
        else:
            print(f"{letter_id} {'dropped' if command == 'drop' else 'requeued'}")
    return exit_code


def _fail(reason: object, exit_code: int) -> int:
    print(f"evascore dead letters: {reason}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
