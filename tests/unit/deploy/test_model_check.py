"""The early check of EVASCORE_MODEL says what the worker would say."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.settings import REPOSITORY
from deploy.model_check import ModelRefused, check_model
from model import CheckpointInvalid
from model.weights.checkpoint import find_checkpoint
from tests.fake_hub import FakeHub, ask_hub
from tests.service import TINY_CHECKPOINT


def _config(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(text) and None


WRONG = {
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "no JSON": _config("{"),
    "no object": _config("[]"),
    "another model": _config(json.dumps({"model_type": "llama"})),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no folder": shutil.rmtree,
}


def complaint(name: str) -> str:
    with pytest.raises(ModelRefused) as refused:
        check_model(name)
    return str(refused.value)


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_wrong_folder_is_refused_in_the_words_of_the_worker(tmp_path, spoil):
    folder = shutil.copytree(TINY_CHECKPOINT, tmp_path / "checkpoint")
    spoil(folder)
    with pytest.raises(CheckpointInvalid) as refused:
        find_checkpoint(str(folder))
    assert complaint(str(folder)) == f"EVASCORE_MODEL: {refused.value}"


def test_good_folder_passes():
    check_model(str(TINY_CHECKPOINT))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with FakeHub(shutil.copytree(TINY_CHECKPOINT, tmp_path / "repository")) as hub:
        ask_hub(hub, tmp_path / "cache", monkeypatch)
        yield hub


def test_name_that_the_hub_lacks_is_refused(hub):
    assert "the Hub has no such checkpoint" in complaint("owner/nmae")


def test_name_that_the_hub_has_passes(hub):
    check_model(hub.name)


def test_cached_checkpoint_passes_though_the_hub_has_deleted_it(hub):
    find_checkpoint(hub.name)
    cached, hub.name = hub.name, "owner/renamed"
    check_model(cached)


def test_hub_that_does_not_answer_refuses_nothing(hub):
    hub.is_refusing = True
    check_model("owner/nmae")


def test_check_imports_no_torch():
    code = "import sys, deploy.run; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
