"""Puts model/, and what it imports of contract/, into the wheel under the name evascore_model.

Only import statements are changed: `model` becomes `evascore_model`, and `contract` becomes
`evascore_model.contract`. So no package named `model` or `contract` gets into an environment.
Training is left out.
"""

import ast
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REPOSITORY = Path(__file__).resolve().parents[1]
NEW_NAMES = {"model": "evascore_model", "contract": "evascore_model.contract"}
# What a program needs of the demo checkpoint; the rest documents its training.
DEMO_FILES = ("README.md", "canary.json", "config.json", "model.safetensors")


class ModelPackage(BuildHookInterface[Any]):
    """Makes the files of the wheel before hatchling packs them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the renamed modules to a temporary folder and name them to hatchling."""
        self._folder = Path(tempfile.mkdtemp())
        for source, target in package_files(REPOSITORY):
            path = self._folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".py":
                path.write_text(renamed(source.read_text()))
            else:
                shutil.copyfile(source, path)
            build_data["force_include"][str(path)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete the temporary folder."""
        shutil.rmtree(self._folder)


def package_files(repository: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file of the package in the repository, with its path in the wheel."""
    for source in sorted(needed_modules(repository)):
        room, *rest = source.relative_to(repository).parts
        yield source, "/".join((*NEW_NAMES[room].split("."), *rest))
    for name in DEMO_FILES:
        source = repository / "model/checkpoints/demo" / name
        yield source, f"evascore_model/checkpoints/demo/{name}"


def needed_modules(repository: Path) -> set[Path]:
    """Return the modules of model/ without training, and those of contract/ that they import."""
    found: set[Path] = set()
    pending = [
        path
        for path in (repository / "model").rglob("*.py")
        if "training" not in path.relative_to(repository).parts
    ]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        names = [name for node in _imports(path.read_text()) for name in _names(node)]
        pending += [module for name in names for module in _modules(repository, name)]
    return found


def renamed(code: str) -> str:
    """Return the code with the new names in its imports; nothing else changes.

    Raises:
        ValueError: an import binds the old name, such as `import model`, and code may use it.
    """
    lines = code.splitlines(keepends=True)
    for node in _imports(code):
        if isinstance(node, ast.Import):
            raise ValueError(f"line {node.lineno}: use `from ... import` for our own modules")
        assert node.module is not None
        line = lines[node.lineno - 1].encode()
        start = node.col_offset + len("from ")
        room = node.module.partition(".")[0]
        assert line[start:].startswith(room.encode())
        after = line[start + len(room) :]
        lines[node.lineno - 1] = (line[:start] + NEW_NAMES[room].encode() + after).decode()
    return "".join(lines)


def _imports(code: str) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the statements that import modules of model/ or contract/."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom) and any(
            name.partition(".")[0] in NEW_NAMES for name in _names(node)
        ):
            yield node


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the modules that a statement may import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _modules(repository: Path, name: str) -> Iterator[Path]:
    """Yield the files that Python runs to import `name`, which may end in a class or function."""
    path = repository
    for part in name.split("."):
        path /= part
        for module in (path / "__init__.py", path.with_suffix(".py")):
            if module.exists():
                yield module
