"""The log lines of a process; each test configures the logging of a child process."""

import os
import select
import subprocess
import sys

import orjson
import pytest

from contract.settings import REPOSITORY
from tests.conftest import HANG_S

_SETUP = """
import logging, sys
from contract.logs import configure_logging, get_logger
log = get_logger("app.somewhere")
configure_logging(sys.argv[1], "web")
"""


def _run(code, level="INFO", **options):
    return subprocess.run(
        [sys.executable, "-c", _SETUP + code, level],
        cwd=REPOSITORY,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        **{"stderr": subprocess.PIPE, **options},
    )


def _events(code, level="INFO"):
    return [orjson.loads(line) for line in _run(code, level).stderr.splitlines()]


def test_an_event_is_one_line_of_json_with_its_origin():
    [event] = _events("log.info('text_scored', size_bytes=3, name='é')")

    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "text_scored",
        "size_bytes": 3,
        "name": "é",
        "level": "info",
        "logger": "app.somewhere",
        "process": "web",
    }


def test_a_librarys_line_has_the_same_fields_and_stays_in_order_with_events():
    ours, theirs, last = _events(
        "log.warning('first')\nlogging.getLogger('lib').warning('%s', 2)\nlog.warning('third')"
    )

    assert [each["event"] for each in (ours, theirs, last)] == ["first", "2", "third"]
    assert ours.keys() == theirs.keys()
    assert theirs["logger"] == "lib"


@pytest.mark.parametrize(
    ("level", "written"),
    [("DEBUG", ["a", "b", "c"]), ("INFO", ["b", "c"]), ("WARNING", ["c"])],
)
def test_events_under_the_level_are_not_written(level, written):
    events = _events(
        "log.debug('a')\nlog.log(logging.INFO, 'b')\nlogging.getLogger('lib').warning('c')", level
    )

    assert [each["event"] for each in events] == written


def test_a_stderr_that_takes_nothing_harms_nobody():
    reader, writer = os.pipe()
    os.close(reader)
    done = _run("log.error('lost')\nprint('went on')", stderr=writer)
    os.close(writer)

    assert done.stdout == "went on\n"


def test_lines_can_be_handed_on_instead_of_written():
    code = (
        "configure_logging('INFO', 'web', lambda line: print('got', line))\n"
        "log.info('ours')\nlogging.getLogger('lib').warning('theirs')"
    )
    done = _run(code)
    events = [orjson.loads(line.removeprefix("got ")) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["ours", "theirs"]
    assert done.stderr == ""


def test_a_reader_that_has_stopped_holds_up_nobody_and_learns_what_it_missed():
    """The reader of a pipe takes nothing until the writer has written more than a pipe holds."""
    reader, writer = os.pipe()
    code = """
import time
for number in range(2000):
    log.info("ours", number=number, filling="x" * 100)
    logging.getLogger("lib").info("theirs %s", "x" * 5000)
print("went on", flush=True)
sys.stdin.readline()
log.info("last")
"""
    child = subprocess.Popen(
        [sys.executable, "-c", _SETUP + code, "INFO"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writer,
    )
    os.close(writer)
    try:
        assert select.select([child.stdout], [], [], HANG_S)[0], "the writer hangs"
        assert child.stdout.readline() == b"went on\n"
        written = os.read(reader, 2**20)
        child.stdin.write(b"\n")
        child.stdin.close()
        with os.fdopen(reader, "rb") as rest:
            written += rest.read()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    *others, lost, last = written.splitlines()
    lost = orjson.loads(lost)
    assert (lost["event"], lost["level"]) == ("log_lines_lost", "warning")
    assert orjson.loads(last)["event"] == "last"
    # One line may be cut; it is among the lost ones.
    assert 4000 <= lost["lines"] + len(others) <= 4001
