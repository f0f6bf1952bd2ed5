"""The log lines of a process; each test configures the logging of a child process."""

import os
import subprocess
import sys

import orjson
import pytest

from contract.settings import REPOSITORY

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
