"""The cache of quantized weights: made once, found again, never used unless whole."""

import json
import logging
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model import Scorer, ScoreRequest
from model.weights import fp8_weights, quantization, quantized_weights
from model.weights.checkpoint import find_checkpoint, load_model
from model.weights.quantized_cache import MANIFEST_FILE, QuantizedCache
from model.weights.quantized_weights import write_quantized

REQUEST = ScoreRequest(text=b"windows of 16 bytes")


class Counter:
    """A model that is its number: how often one was made."""

    def __init__(self) -> None:
        self.num_made = 0

    def make(self) -> str:
        self.num_made += 1
        return f"model {self.num_made}"

    def write(self, folder: Path) -> None:
        (folder / "weights").write_text(self.make())
        (folder / "config").write_text("{}")


def load(folder: Path) -> str:
    return (folder / "weights").read_text()


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def cache(tmp_path) -> QuantizedCache:
    return QuantizedCache(tmp_path / "cache", {"weights": "0123", "quantization": "int8"})


def get(cache: QuantizedCache, counter: Counter, write=None) -> str:
    return cache.load_or_make(load=load, write=write or counter.write, make=counter.make)


def test_second_start_loads_what_the_first_wrote(cache, counter):
    assert [get(cache, counter), get(cache, counter)] == ["model 1", "model 1"]
    assert counter.num_made == 1


def test_another_identity_is_another_entry(cache, counter):
    get(cache, counter)
    other = QuantizedCache(cache.folder, {**cache.identity, "quantization": "nf4"})
    assert get(other, counter) == "model 2"
    assert get(cache, counter) == "model 1"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["weights", "config", MANIFEST_FILE])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped bit", "gone"])
def test_damaged_entry_is_made_anew(cache, counter, name, damage):
    get(cache, counter)
    damage(cache.entry / name)
    assert get(cache, counter) == "model 2"
    assert get(cache, counter) == "model 2"


def die_while_writing(cache: QuantizedCache) -> None:
    def write_half(folder: Path) -> None:
        (folder / "weights").write_text("mod")
        os._exit(9)

    get(cache, Counter(), write_half)


def test_entry_of_a_writer_that_died_is_never_used(cache, counter):
    writer = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(cache,))
    writer.start()
    writer.join(60)
    assert writer.exitcode == 9
    assert not cache.is_intact()
    assert get(cache, counter) == "model 1"
    assert {path.suffix for path in cache.folder.iterdir()} == {"", ".lock"}


def start(cache: QuantizedCache, barrier, answers) -> None:
    barrier.wait(60)
    counter = Counter()
    answers.put((get(cache, counter), counter.num_made))


def test_of_starters_at_once_one_makes_the_entry(cache):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(5), context.Queue()
    starters = [context.Process(target=start, args=(cache, barrier, answers)) for _ in range(5)]
    for starter in starters:
        starter.start()
    found = sorted(answers.get(timeout=60) for _ in starters)
    for starter in starters:
        starter.join(60)
    assert found == [("model 1", 0)] * 4 + [("model 1", 1)]


def test_intact_entry_is_read_without_a_lock_as_in_an_image(cache, counter):
    get(cache, counter)
    cache.entry.with_suffix(".lock").unlink()
    assert get(cache, counter) == "model 1"
    assert [path.suffix for path in cache.folder.iterdir()] == [""]


def test_folder_that_cannot_be_made_costs_the_cache_alone(tmp_path, counter, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = QuantizedCache(tmp_path / "file" / "cache", {})
    with caplog.at_level(logging.WARNING):
        assert [get(cache, counter), get(cache, counter)] == ["model 1", "model 2"]
    assert "cannot be cached" in caplog.text


def test_full_disk_costs_the_cache_alone(cache, counter, caplog):
    def write_on_full_disk(folder: Path) -> None:
        (folder / "weights").write_text("mod")
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING):
        assert get(cache, counter, write_on_full_disk) == "model 1"
    assert "No space left on device" in caplog.text
    assert [path.suffix for path in cache.folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("mode", ["int8", "nf4", "fp8"])
def test_model_from_the_cache_scores_bit_for_bit_the_same(
    tiny_checkpoint, tmp_path, mode, monkeypatch
):
    def load_scorer() -> Scorer:
        return Scorer.load(str(tiny_checkpoint), quantization=mode, cache_dir=tmp_path)

    first = load_scorer()
    monkeypatch.setattr(quantization, "bits_and_bytes_config", lambda *_: None)  # quantizes nothing
    monkeypatch.delattr(fp8_weights, "quantize_rows")
    second = load_scorer()

    assert first.info == second.info
    assert first.info.quantization == mode
    assert first.score([REQUEST]) == second.score([REQUEST])


def test_phases_of_a_start_tell_whether_the_cache_was_used(tiny_checkpoint, tmp_path):
    def phases() -> list[str]:
        found: list[str] = []
        Scorer.load(
            str(tiny_checkpoint), quantization="int8", cache_dir=tmp_path, on_phase=found.append
        )
        return found

    assert phases() == ["download", "checksum", "import", "checksum", "quantize", "load"]
    assert phases() == ["download", "checksum", "import", "checksum", "load"]


def test_other_configuration_of_the_same_weights_is_not_mixed_up(tiny_checkpoint, tmp_path):
    scores = []
    for theta in (10_000.0, 500.0):
        config = (tiny_checkpoint / "config.json").read_text().replace("100000.0", str(theta))
        folder = tmp_path / str(theta)
        folder.mkdir()
        (folder / "config.json").write_text(config)
        (folder / "model.safetensors").symlink_to(tiny_checkpoint / "model.safetensors")
        scorer = Scorer.load(str(folder), quantization="int8", cache_dir=tmp_path / "cache")
        scores.append(scorer.score([REQUEST]))
    assert scores[0] != scores[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["int8", "nf4"])
def test_weights_are_written_as_transformers_writes_them(
    tiny_checkpoint, tmp_path, mode, dtype, monkeypatch
):
    monkeypatch.setattr(quantized_weights, "MAX_FILE_BYTES", 20_000)
    checkpoint, cpu = find_checkpoint(str(tiny_checkpoint)), torch.device("cpu")
    config = quantization.bits_and_bytes_config(mode, dtype)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()

    write_quantized(checkpoint, ours, config, device=cpu, dtype=dtype)
    load_model(checkpoint, device=cpu, dtype=dtype, quantization=config).save_pretrained(theirs)

    assert len(list(ours.glob("*.safetensors"))) > 2
    found, wanted = stored(ours), stored(theirs)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    configs = [json.loads((folder / "config.json").read_bytes()) for folder in (ours, theirs)]
    assert configs[0] == {**configs[1], "architectures": configs[0]["architectures"]}


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name."""
    files = [load_file(path) for path in folder.glob("*.safetensors")]
    return {name: tensor for file in files for name, tensor in file.items()}
