"""Every example of the client's guide and of the cookbook does what it is there for.

The blocks of a document run in their order and in one folder, against a service that stands
elsewhere than at port 8000. The Python of the guide has one namespace. Readers copy single recipes
of the cookbook, so each of its Python blocks has a namespace of its own.
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
# Both have some of each kind of block.
DOCUMENTS = [("client.md", False), ("cookbook.md", True)]


@pytest.mark.parametrize(("document", "stands_alone"), DOCUMENTS)
def test_examples_work(scoring, tmp_path, monkeypatch, document, stands_alone):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVASCORE_URL", scoring.url)
    (tmp_path / "text.txt").write_text("any text")
    blocks = BLOCK.findall((REPOSITORY / "docs" / document).read_text())
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    names: dict[str, object] = {}
    clients: list[object] = []
    for kind, code in blocks:
        if kind == "sh":
            run_in_shell(scoring, code)
            continue
        names = {} if stands_alone else names
        exec(compile(code, document, "exec"), names)
        clients.append(names.get("client"))
    used = {client for client in clients if isinstance(client, evascore.Client)}
    assert used
    for client in used:
        client.close()


def run_in_shell(scoring: Service, commands: str) -> None:
    """Run the commands; one that ends with errors for single texts (4) has done its work."""
    programs = Path(sys.executable).parent
    setup = f"PATH={programs}:$PATH PYTHONPATH={REPOSITORY}/client EVASCORE_URL={scoring.url}"
    for command in commands.splitlines():
        script = f"export {setup}; {command}"
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert ran.returncode in (0, 4), (command, ran.stderr)
