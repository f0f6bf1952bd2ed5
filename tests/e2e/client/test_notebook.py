"""The example notebook runs from its first cell to its last, with what a reader would see."""

import ast
import json
from typing import Any

import pandas as pd
import pytest

from contract.settings import REPOSITORY

NOTEBOOK = json.loads((REPOSITORY / "docs" / "notebook.ipynb").read_text())


def cells(kind: str) -> dict[str, str]:
    """The sources of the cells of a kind, by their IDs."""
    found = (cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind)
    return {cell["id"]: "".join(cell["source"]) for cell in found}


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; return the value of its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)  # noqa: S307


@pytest.fixture(scope="module")
def shown(scoring) -> dict[str, Any]:
    """What each cell shows."""
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVASCORE_URL", scoring.url)
        values = {name: run(source, names) for name, source in cells("code").items()}
        names["client"].close()
    return values


def test_every_cell_shows_something(shown):
    assert [name for name, value in shown.items() if value is None] == []


def test_score_is_shown_as_a_heat_map(shown):
    assert shown["heat"]._repr_html_().count("title=") == shown["heat"].num_chars


def test_frames_have_the_rows_that_the_text_announces(shown):
    assert len(shown["characters"]) == len(shown["words"]) == 5
    assert list(shown["score-many"]["error"].fillna("")) == ["", "", "empty_text", ""]
    assert shown["ranking"]["bits_per_byte"].is_monotonic_increasing


def test_values_of_frames_are_those_of_the_score(shown):
    bits = shown["heat"].to_frame()["bits"].sum()
    assert bits == pytest.approx(shown["heat"].bits_per_byte * shown["heat"].num_bytes)
    assert isinstance(shown["ranking"], pd.DataFrame)


def test_notebook_is_stored_without_output():
    # The output of an earlier release would mislead, and every run would change the file.
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
