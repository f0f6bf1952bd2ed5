"""The limit of open files is raised as far as it may be, and connections stay below it."""

import subprocess
import sys

import pytest

from app.server.open_files import MIN_CONNECTIONS, OTHER_FILES
from contract.settings import REPOSITORY, Settings

SCRIPT = """
import resource
from app.server.open_files import connections_within_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(connections_within_limit(300), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "raised"),
    [
        (256, 1024, 300, 300 + OTHER_FILES),
        (256, 256, 256 - OTHER_FILES, 256),
        (256, 400, 400 - OTHER_FILES, 400),
        (900, 1024, 300, 900),
    ],
)
def test_connections_fit_the_open_files(soft, hard, connections, raised):
    # In a process of its own: a hard limit that is lowered stays low.
    script = SCRIPT.format(soft=soft, hard=hard)
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(connections), str(raised)]


def test_least_number_of_connections_is_that_of_the_setting():
    (least,) = Settings.model_fields["web_connections"].metadata
    assert least.ge == MIN_CONNECTIONS
