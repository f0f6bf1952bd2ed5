"""Loading a checkpoint keeps one tensor's intermediate results in memory, not a shard's."""

from bench.loading import load_in_child, make_checkpoint

# What Python, threads and the tables of names take, whatever the size of the model.
NOISE_MB = 16


def test_quantizing_needs_a_few_times_the_largest_tensor_beside_the_result(tmp_path):
    largest_mb = make_checkpoint(tmp_path / "model", hidden_size=512, num_layers=16) / 1e6
    size_mb = sum(file.stat().st_size for file in (tmp_path / "model").iterdir()) / 1e6

    measured = load_in_child(tmp_path / "model", "int8", tmp_path / "cache")

    assert size_mb > 80
    assert measured["peak_mb"] < size_mb / 2 + 5 * largest_mb + NOISE_MB
    assert measured["peak_mb"] > size_mb / 2
