"""What a type checker finds in a program that uses the client."""

import subprocess
import sys

from contract.settings import REPOSITORY

PROGRAM = """
from collections.abc import AsyncIterator, Iterator

from evascore import AsyncClient, Client, EvascoreError, Score, Text

TEXTS: list[str | bytes | Text] = ["a", b"b", Text("c", custom_id="1")]


def sums(client: Client, errors: bool) -> int:
    total = sum(score.num_bytes for score in client.score_many(TEXTS, outputs=["bytes"]))
    scores: Iterator[Score] = client.score_many(TEXTS, errors="raise", next_chars=3)
    either: Iterator[Score | EvascoreError] = client.score_many(TEXTS, errors="return")
    unknown: Iterator[Score | EvascoreError] = client.score_many(
        TEXTS, errors="return" if errors else "raise"
    )
    return total + len([*scores, *either, *unknown])


async def all_of(client: AsyncClient) -> list[int]:
    scores: AsyncIterator[Score] = client.score_many(TEXTS)
    return [score.num_bytes async for score in scores]
"""


def test_score_many_yields_errors_for_a_type_checker_only_where_it_returns_them(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    ran = subprocess.run(
        # The errors of the package itself, such as missing stubs, are not those of the program.
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(REPOSITORY / "client")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
