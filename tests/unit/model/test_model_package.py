"""The wheel evascore-model: what is in it, that it runs far from here, and that its scores agree.

It is installed without a network in a new virtual environment, which sees the packages of this one.
"""

import ast
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import contract
from contract.settings import REPOSITORY
from model_package.build_hook import renamed

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = (REPOSITORY / "model_package/README.md").read_text()
PROJECT = tomllib.loads((REPOSITORY / "model_package/pyproject.toml").read_text())["project"]
# Installed with another one that is declared, or of no use without a GPU.
NOT_DECLARED = {
    "httpx2": "huggingface-hub",
    "pydantic-core": "pydantic",
    "triton": "torch",
}
TEXTS = [b"The quick brown fox", "Grüße, 世界".encode(), b"\xff\x00\xfe", b"a" * 700]
# Prints what both packages compute of the same texts; the name of the package is its argument.
COMPUTE = f"""
import importlib, json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
package = importlib.import_module(sys.argv[1])
scorer = package.Scorer.load(str(package.DEMO_CHECKPOINT))
outputs = frozenset({{"bytes", "curvature"}})
results = scorer.score([package.ScoreRequest(text, outputs=outputs) for text in {TEXTS!r}])
tokenizer = AutoTokenizer.from_pretrained(package.DEMO_CHECKPOINT)
model = AutoModelForCausalLM.from_pretrained(package.DEMO_CHECKPOINT, dtype="float32")
ids = tokenizer(["The quick brown fox", "Once"], padding=True, return_tensors="pt")
with torch.inference_mode():
    logits = model(**ids).logits
print(json.dumps([results, scorer.info.as_json(), logits.tolist(), type(tokenizer).__name__]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the make target builds."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["make", "--silent", "model-wheel", f"WHEEL_DIR={folder}"]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    install = ["install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    lent = Path(paths["purelib"]) / "lent.pth"
    lent.write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="module")
def modules(wheel: Path) -> dict[str, str]:
    """The code of each module of the wheel by its path."""
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name).decode() for name in file.namelist() if name[-3:] == ".py"}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> dict[str, list[str]]:
    """The metadata of the wheel: a list of values for each key."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("/METADATA"))
        parsed = Parser().parsestr(file.read(name).decode())
    keys = set(parsed.keys())
    return {key: parsed.get_all(key, []) for key in keys} | {"": [str(parsed.get_payload())]}


def names_of(wheel: Path) -> list[str]:
    """The paths of all files in the wheel."""
    with zipfile.ZipFile(wheel) as file:
        return file.namelist()


def imported(code: str) -> Iterator[str]:
    """The names of all modules that a module imports, also within functions."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_only_one_package_lands_in_an_environment(wheel):
    information = f"evascore_model-{contract.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names_of(wheel)} == {"evascore_model", information}


def test_nothing_of_the_service_is_in_it(wheel):
    inside = {name.removeprefix("evascore_model/") for name in names_of(wheel)}
    ours = {
        str(path.relative_to(REPOSITORY / "model"))
        for path in (REPOSITORY / "model").rglob("*.py")
        if "training" not in path.parts
    }
    shared = {name for name in inside if name.startswith("contract/")}
    demo = {name for name in inside if name.startswith("checkpoints/")}
    information = {name for name in inside if ".dist-info/" in name}
    assert inside == ours | shared | demo | information
    grammar = {name for name in shared if name.startswith("contract/grammar/")}
    assert shared - grammar == {"contract/__init__.py", "contract/errors.py"}
    assert grammar <= {
        f"contract/grammar/{path.name}" for path in (REPOSITORY / "contract/grammar").glob("*.py")
    }
    assert "checkpoints/demo/model.safetensors" in demo


def test_no_module_imports_an_old_name_or_an_undeclared_package(modules):
    roots = {name.partition(".")[0] for code in modules.values() for name in imported(code)}
    foreign = roots - sys.stdlib_module_names - {"evascore_model"}
    distributions = packages_distributions()
    needed = {canonicalize_name(distributions.get(root, [root])[0]) for root in foreign}
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    extra = {
        canonicalize_name(Requirement(line).name)
        for line in PROJECT["optional-dependencies"]["quantization"]
    }
    assert needed - declared - extra <= NOT_DECLARED.keys()
    assert set(NOT_DECLARED.values()) <= declared
    assert declared <= needed


def test_code_differs_from_the_repository_in_imports_alone(modules):
    for name, code in modules.items():
        source = name.removeprefix("evascore_model/")
        room = "" if source.startswith("contract/") else "model/"
        original = (REPOSITORY / f"{room}{source}").read_text().splitlines()
        for ours, theirs in zip(original, code.splitlines(), strict=True):
            assert theirs == ours or re.match(r"\s*from evascore_model[. ]", theirs)


@pytest.mark.parametrize(
    "line", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["quantization"]]
)
def test_dependency_begins_at_the_pinned_version(line):
    wanted = Requirement(line)
    pins = "".join(
        (REPOSITORY / name).read_text()
        for name in ("requirements.txt", "requirements-web.txt", "constraints.txt")
    )
    (pin,) = re.findall(rf"^{wanted.name}==(\S+)$", pins, re.MULTILINE | re.IGNORECASE)
    (least,) = (one.version for one in wanted.specifier if one.operator == ">=")
    assert pin in wanted.specifier
    assert pin.startswith(f"{least}.")


def test_metadata_has_version_licence_and_readme(wheel, metadata):
    assert metadata["Name"] == ["evascore-model"]
    assert metadata["Version"] == [contract.__version__]
    assert metadata["License-Expression"] == ["Apache-2.0"]
    assert metadata[""] == [README]
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("/licenses/LICENSE"))
        assert file.read(name) == (REPOSITORY / "LICENSE").read_bytes()


def compute(python: Path | str, package: str, folder: Path) -> list[object]:
    """What `COMPUTE` prints when it runs in `folder`."""
    command = [str(python), "-c", COMPUTE, package]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


def test_scores_and_logits_are_those_of_the_repository(python, tmp_path):
    here = compute(sys.executable, "model", REPOSITORY)
    there = compute(python, "evascore_model", tmp_path)
    assert there == here
    assert there[3] == "EvaByteTokenizer"


def test_command_prints_what_the_repository_prints(python, tmp_path):
    lines = b'{"custom_id": "a", "text": "Any text.", "outputs": ["bytes"]}\n{"text": ""}\n'
    here = [sys.executable, "-m", "model", "score"]
    there = [str(python), "-m", "evascore_model", "score"]
    printed = [
        subprocess.run(command, cwd=folder, input=lines, capture_output=True, check=True).stdout
        for command, folder in ((here, REPOSITORY), (there, tmp_path))
    ]
    assert printed[0] == printed[1]
    assert b"log_prob_nats" in printed[0]


def test_examples_of_its_readme_work(python, tmp_path):
    blocks = BLOCK.findall(README)
    assert {kind for kind, _ in blocks} == {"python", "sh"}
    code = "".join(body for kind, body in blocks if kind == "python")
    ran = subprocess.run(
        [str(python), "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "The quick brown" in ran.stdout
    for kind, body in blocks:
        if kind == "sh":
            script = f"PATH={python.parent}:$PATH; {body}"
            shell = subprocess.run(
                ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
            )
            assert '"log_likelihood_nats":' in shell.stdout


@pytest.mark.parametrize("code", ["import model\n", "def f():\n    import contract.errors as e\n"])
def test_import_that_binds_an_old_name_is_refused(code):
    with pytest.raises(ValueError, match="use `from"):
        renamed(code)


def test_rename_changes_nothing_but_the_imports_of_our_packages():
    code = 'from models import x\nfrom model.a import (\n    model,\n)\ns = "from model import x"\n'
    changed = code.replace("from model.a", "from evascore_model.a")
    assert renamed(code) == changed
