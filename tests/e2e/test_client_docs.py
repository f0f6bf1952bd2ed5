"""Every example of the client's guide and of the cookbook does what it is there for.

The blocks of a document run in their order and in one folder: shell commands in a shell, Python in
one namespace, against a service that stands elsewhere than at port 8000.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import evascore
from contract.settings import REPOSITORY
from tests.service import Service

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Both have some of each.
DOCUMENTS = ("client.md", "cookbook.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_work(scoring, tmp_path, monkeypatch, document):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVASCORE_URL", scoring.url)
    (tmp_path / "text.txt").write_text("any text")
    blocks = BLOCK.findall((REPOSITORY / "docs" / document).read_text())
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    names: dict[str, object] = {}
    for kind, code in blocks:
        if kind == "sh":
            run_in_shell(scoring, code)
        else:
            exec(compile(code, document, "exec"), names)
    client = names["client"]
    assert isinstance(client, evascore.Client)
    client.close()


def run_in_shell(scoring: Service, commands: str) -> None:
    """Run the commands; one that ends with errors for single texts (4) has done its work."""
    programs = Path(sys.executable).parent
    setup = f"PATH={programs}:$PATH PYTHONPATH={REPOSITORY}/client EVASCORE_URL={scoring.url}"
    for command in commands.splitlines():
        script = f"export {setup}; {command}"
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert ran.returncode in (0, 4), (command, ran.stderr)
