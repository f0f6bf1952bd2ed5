"""Checkpoints from a Hub that really answers over HTTP: fetched whole, resumed, compared."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model import CheckpointInvalid, Scorer, ScoreRequest
from model.weights.checkpoint import find_checkpoint, revision_of
from model.weights.hub import PIN_FILE, check_downloads
from tests.fake_hub import COMMIT, FakeHub, ask_hub

TEXT = ScoreRequest(text=b"a text")
PUSHED = "f" * 40


@pytest.fixture
def hub(tiny_checkpoint, tmp_path, monkeypatch) -> Iterator[FakeHub]:
    """A Hub that has the tiny checkpoint, and an empty cache."""
    repository = shutil.copytree(tiny_checkpoint, tmp_path / "repository")
    with FakeHub(repository) as hub:
        ask_hub(hub, tmp_path / "cache", monkeypatch)
        yield hub


@pytest.fixture
def sharded_hub(hub, tiny_model) -> FakeHub:
    """The same checkpoint in several files."""
    (hub.folder / "model.safetensors").unlink()
    tiny_model.save_pretrained(hub.folder, max_shard_size="30KB")
    return hub


def weights_of(hub: FakeHub) -> Path:
    return find_checkpoint(hub.name).weight_files[0]


def damage(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def complaint(hub: FakeHub) -> str:
    with pytest.raises(CheckpointInvalid) as caught:
        Scorer.load(hub.name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def partial_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*.part"))


def test_checkpoint_of_a_hub_scores_like_its_folder(hub):
    [expected] = Scorer.load(str(hub.folder)).score([TEXT])
    scorer = Scorer.load(hub.name)
    assert scorer.score([TEXT]) == [expected]
    assert scorer.info.name == hub.name
    assert scorer.info.revision == revision_of((hub.folder / "model.safetensors",))


def test_every_file_of_a_sharded_checkpoint_is_fetched_once(sharded_hub):
    for _ in range(2):
        files = find_checkpoint(sharded_hub.name).weight_files
    assert len(files) > 2
    assert sharded_hub.ranges == [None] * len(files)


def test_weights_in_folders_are_left_alone(hub):
    (hub.folder / "original").mkdir()
    (hub.folder / "original" / "other.safetensors").write_bytes(b"in another form")
    assert weights_of(hub).is_file()
    assert hub.ranges == [None]


@pytest.mark.parametrize("cut", ["close", "reset"])
def test_download_goes_on_where_the_connection_broke(hub, tmp_path, cut):
    hub.cuts = [(10_000, cut)]
    assert weights_of(hub).read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    assert hub.ranges == [None, "bytes=10000-"]
    assert partial_files(tmp_path) == []


def test_download_that_breaks_for_good_goes_on_at_the_next_try(hub, tmp_path):
    hub.cuts = [(10_000, "reset"), (0, "reset")]
    assert "the downloaded part is kept" in complaint(hub)
    assert [file.stat().st_size for file in partial_files(tmp_path)] == [10_000]
    assert weights_of(hub).read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    assert hub.ranges == [None, "bytes=10000-", "bytes=10000-"]


def test_two_that_fetch_at_once_download_once(hub):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(weights_of, [hub, hub])
    assert first.read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    assert first == second
    assert hub.ranges == [None]


def test_part_that_is_longer_than_the_file_is_fetched_anew(hub, tmp_path):
    weights = hub.folder / "model.safetensors"
    blobs = tmp_path / "cache" / "models--owner--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.sha256(weights)}.part").write_bytes(bytes(weights.stat().st_size + 1))
    assert weights_of(hub).read_bytes() == weights.read_bytes()


def test_weights_that_come_damaged_are_never_used(hub, tmp_path):
    hub.is_damaging = True
    assert "model.safetensors arrived damaged" in complaint(hub)
    assert partial_files(tmp_path) == []
    hub.is_damaging = False
    check_downloads((weights_of(hub),))


def test_weights_that_were_damaged_on_disk_are_named_with_the_remedy(hub):
    blob = weights_of(hub).resolve()
    damage(blob)
    assert f"delete {blob}" in complaint(hub)
    blob.unlink()
    assert Scorer.load(hub.name).score([TEXT])


@pytest.mark.parametrize("mode", ["none", "int8"])
def test_damage_is_found_before_weights_are_read(hub, mode):
    damage(weights_of(hub).resolve())
    with pytest.raises(CheckpointInvalid, match="SHA-256"):
        Scorer.load(hub.name, quantization=mode)


def test_weights_that_were_quantized_are_not_read_again(hub, tmp_path):
    mode = {"quantization": "int8", "cache_dir": tmp_path / "quantized"}
    [expected] = Scorer.load(hub.name, **mode).score([TEXT])
    damage(weights_of(hub).resolve())
    assert Scorer.load(hub.name, **mode).score([TEXT]) == [expected]


def test_complete_cache_will_do_while_the_hub_is_away(hub):
    weights = weights_of(hub)
    hub.is_refusing = True
    assert weights_of(hub) == weights


def test_hub_that_is_away_is_reported_in_one_line(hub):
    hub.is_refusing = True
    said = complaint(hub)
    failed = f"checkpoint {hub.name}: no such folder, and the download from the Hub failed"
    assert said.startswith(f"{failed} (HfHubHTTPError: ")


def test_unknown_name_is_reported_in_one_line(hub):
    hub.name = "owner/other"
    with pytest.raises(CheckpointInvalid, match="owner/unknown: no such folder"):
        find_checkpoint("owner/unknown")


@pytest.fixture
def pushed_hub(hub, tmp_path) -> FakeHub:
    """A Hub to whose repository other weights were pushed after the first load."""
    Scorer.load(hub.name)
    other = shutil.copytree(hub.folder, tmp_path / "pushed")
    config = other / "config.json"
    config.write_text(config.read_text().replace("{", '{"pushed": true,', 1))
    damage(other / "model.safetensors")
    hub.push(other, PUSHED)
    return hub


def test_checkpoint_stays_the_one_that_was_loaded_first(pushed_hub):
    first = revision_of((pushed_hub.older[COMMIT] / "model.safetensors",))
    for _ in range(2):
        assert find_checkpoint(pushed_hub.name).folder.name == COMMIT
        assert Scorer.load(pushed_hub.name).info.revision == first


@pytest.mark.parametrize("revision", ["main", PUSHED])
def test_revision_that_is_asked_for_is_loaded_and_not_kept(pushed_hub, revision):
    pushed = revision_of((pushed_hub.folder / "model.safetensors",))
    assert Scorer.load(pushed_hub.name, hub_revision=revision).info.revision == pushed
    assert find_checkpoint(pushed_hub.name).folder.name == COMMIT


def test_revision_of_the_first_load_is_kept_even_if_it_was_asked_for(hub, tmp_path):
    find_checkpoint(hub.name, COMMIT)
    hub.push(hub.folder, PUSHED)
    assert find_checkpoint(hub.name).folder.name == COMMIT


def test_first_commit_is_loaded_while_the_hub_is_away(pushed_hub):
    find_checkpoint(pushed_hub.name, "main")
    pushed_hub.is_refusing = True
    assert find_checkpoint(pushed_hub.name).folder.name == COMMIT


@pytest.mark.parametrize("content", [None, "", "main", "../../x", "f" * 39])
def test_newest_commit_is_loaded_if_the_first_is_not_known(pushed_hub, tmp_path, content):
    (pin,) = (tmp_path / "cache").rglob(PIN_FILE)
    assert pin.read_text() == f"{COMMIT}\n"
    pin.unlink()
    if content is not None:
        pin.write_text(content)
    assert find_checkpoint(pushed_hub.name).folder.name == PUSHED
    assert pin.read_text() == f"{PUSHED}\n"


def test_first_commit_that_the_hub_lacks_is_reported_with_the_remedies(pushed_hub, tmp_path):
    (pin,) = (tmp_path / "cache").rglob(PIN_FILE)
    pin.write_text("0" * 40)
    reason = complaint(pushed_hub)
    assert f"no longer has commit {'0' * 40}, which was loaded here first" in reason
    assert "set EVASCORE_MODEL_REVISION or --revision" in reason
    assert f"delete {pin}" in reason
    assert find_checkpoint(pushed_hub.name, PUSHED).folder.name == PUSHED
    pin.unlink()
    assert find_checkpoint(pushed_hub.name).folder.name == PUSHED


def test_revision_that_the_hub_lacks_is_named(hub):
    with pytest.raises(CheckpointInvalid, match=f"owner/name at revision {'0' * 40}: "):
        find_checkpoint(hub.name, "0" * 40)
