"""Every fault is found before weights are read, and named in one line."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import CheckpointInvalid, DeviceUnavailable, Scorer, ScoreRequest
from model.evabyte.configuration import MAX_COUNTS

TEXT = ScoreRequest(text=b"one text over several windows of the tiny model")


@pytest.fixture
def folder(tiny_checkpoint, tmp_path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def sharded(tiny_model, tmp_path) -> Path:
    tiny_model.save_pretrained(tmp_path / "sharded", max_shard_size="30KB")
    return tmp_path / "sharded"


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not ...}))


def change_tensors(folder: Path, **changes) -> None:
    tensors = load_file(folder / "model.safetensors") | changes
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def complaint_about(checkpoint: Path | str) -> str:
    with pytest.raises(CheckpointInvalid) as caught:
        Scorer.load(str(checkpoint))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_with_a_revision_is_refused(folder):
    with pytest.raises(CheckpointInvalid, match="leave out --revision") as caught:
        Scorer.load(str(folder), hub_revision="main")
    assert f"{folder}: is a folder, which has no revision main" in str(caught.value)


def test_sharded_checkpoint_scores_like_the_same_in_one_file(sharded, folder):
    assert len(list(sharded.glob("*.safetensors"))) > 2

    [one], [many] = (Scorer.load(str(path)).score([TEXT]) for path in (folder, sharded))
    assert one == many


def test_bfloat16_weights_score_in_float32(folder, scorer):
    tensors = load_file(folder / "model.safetensors")
    rounded = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    change_tensors(folder, **rounded)

    loaded = Scorer.load(str(folder))

    assert loaded.info.dtype == "float32"
    assert loaded.info.num_parameters == scorer.info.num_parameters
    bits_per_byte = loaded.score([TEXT])[0]["bits_per_byte"]
    assert bits_per_byte == pytest.approx(scorer.score([TEXT])[0]["bits_per_byte"], rel=0.02)


def test_revision_changes_with_the_weights_alone(folder, scorer, sharded):
    before = Scorer.load(str(folder)).info.revision
    change_config(folder, is_demo=True)
    same = Scorer.load(str(folder)).info
    change_tensors(folder, **{"model.norm.weight": torch.ones(32)})
    after = Scorer.load(str(folder)).info.revision

    assert (before, same.revision, same.is_demo) == (scorer.info.revision, before, True)
    assert after != before
    assert Scorer.load(str(sharded)).info.revision != before


def test_missing_folder_is_named(tmp_path):
    assert "no such folder" in complaint_about(tmp_path / "nowhere")


def test_folder_without_configuration_is_named(tmp_path):
    assert f"{tmp_path}/config.json: not found" in complaint_about(tmp_path)


def test_folder_without_weights_is_named(folder):
    (folder / "model.safetensors").unlink()

    assert "has neither model.safetensors nor" in complaint_about(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"], ids=repr)
def test_broken_configuration_is_named(folder, content):
    (folder / "config.json").write_text(content, encoding="latin-1")

    assert f"{folder}/config.json: " in complaint_about(folder)


@pytest.mark.parametrize("model_type", ["llama", ..., 5], ids=str)
def test_foreign_configuration_is_named(folder, model_type):
    change_config(folder, model_type=model_type)

    assert "config.json: model_type is" in complaint_about(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"window_size": ...}, "window_size is missing"),
        ({"norm_add_unit_offset": None}, "norm_add_unit_offset is missing"),
        ({"rope_theta": ..., "rope_parameters": ...}, "rope_theta or rope_parameters is missing"),
        ({"chunk_size": 5}, "chunk_size is 5; it must divide window_size, 16"),
        ({"window_size": "wide"}, "window_size"),
        ({"vocab_size": 256}, "vocab_size is 256"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 5.0}}, ""),
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config is set; name the"),
    ],
    ids=str,
)
def test_configuration_that_cannot_be_computed_is_named(folder, changes, complaint):
    change_config(folder, **changes)

    assert complaint in complaint_about(folder)


@pytest.mark.parametrize("num_bytes", [0, 4, 100, 5_000])
def test_truncated_weights_are_named(folder, num_bytes):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:num_bytes])

    assert f"{path}: truncated, or not a safetensors file" in complaint_about(folder)


def test_weights_that_lack_their_last_byte_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    assert f"{path}: truncated" in complaint_about(folder)


def test_missing_tensor_is_named(folder):
    change_tensors(folder, **{"model.layers.1.self_attn.adaptive_phi": None})

    assert "tensors are missing, such as model.layers.1.self_attn.adaptive_phi;" in complaint_about(
        folder
    )


def test_tensor_of_another_shape_is_named(folder):
    change_tensors(folder, **{"model.norm.weight": torch.zeros(33)})

    assert "tensor model.norm.weight has shape (33,), but config.json implies (32,)" in (
        complaint_about(folder)
    )


def test_tensor_of_another_architecture_is_named(folder):
    change_tensors(folder, **{"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)})

    assert "tensor model.layers.0.self_attn.q_proj.bias does not belong to" in complaint_about(
        folder
    )


def test_quantized_tensor_is_named(folder):
    weight = torch.zeros(32, dtype=torch.int8)
    change_tensors(folder, **{"model.norm.weight": weight})

    assert "tensor model.norm.weight has type I8" in complaint_about(folder)


def test_missing_shard_is_named(sharded):
    shard = min(sharded.glob("*.safetensors"))
    shard.unlink()

    assert f"{shard}: not found" in complaint_about(sharded)


def test_missing_tensor_of_a_shard_is_named(sharded):
    path = min(sharded.glob("*.safetensors"))
    tensors = load_file(path)
    name, _ = tensors.popitem()
    save_file(tensors, path, metadata={"format": "pt"})

    assert f"tensors are missing, such as {name};" in complaint_about(sharded)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": 3}', "x"])
def test_broken_index_is_named(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)

    assert "model.safetensors.index.json: " in complaint_about(sharded)


@pytest.mark.parametrize("device", ["cuda", "abacus"])
def test_absent_device_is_named(folder, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceUnavailable, match=f"device {device}"):
        Scorer.load(str(folder), device=device)


@pytest.mark.parametrize(
    "name",
    [
        *("../outside.safetensors", "/etc/passwd", "/outside.safetensors", "sub/a.safetensors"),
        *(
            "..",
            "",
            "model.bin",
            ".safetensors",
            "a\nb.safetensors",
            7,
            None,
            ["a.safetensors"],
            {},
        ),
    ],
)
def test_index_may_not_name_files_outside_its_folder(sharded, name):
    (sharded.parent / "outside.safetensors").write_bytes(b"secret")
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    first = next(iter(index["weight_map"]))
    index["weight_map"][first] = name
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "may only name .safetensors files in the same folder" in complaint_about(sharded)


@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_config_that_is_nested_too_deeply_is_refused_at_once(folder, opening):
    (folder / "config.json").write_text(opening * 100_000)
    began_at = time.process_time()
    assert "config.json: is not readable JSON" in complaint_about(folder)
    assert time.process_time() - began_at < 1


@pytest.mark.parametrize("depth", [32, 900, 5000, 100_000])
def test_known_config_with_a_deep_value_is_refused_at_once(folder, depth):
    config = (folder / "config.json").read_text().strip().removesuffix("}")
    (folder / "config.json").write_text(f'{config}, "x": {"[" * depth}{"]" * depth}}}')
    began_at = time.process_time()
    assert "copy it again" in complaint_about(folder)
    assert time.process_time() - began_at < 1


@pytest.mark.parametrize("key", MAX_COUNTS)
def test_counts_beyond_every_model_are_refused_at_once(folder, key):
    for value in (MAX_COUNTS[key] + 1, 10**18):
        change_config(folder, **{key: value})
        began_at = time.process_time()
        assert f"{key} is {value}; it must be {MAX_COUNTS[key]} or less" in complaint_about(folder)
        assert time.process_time() - began_at < 1


def test_20000_layers_are_refused_at_once(folder):
    change_config(folder, num_hidden_layers=20_000)
    began_at = time.process_time()
    assert "num_hidden_layers is 20000" in complaint_about(folder)
    assert time.process_time() - began_at < 1
