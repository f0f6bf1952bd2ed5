"""Quantizing a checkpoint keeps a file's worth of the result in memory, whatever its size."""

from bench.loading import load_in_child, make_checkpoint
from model.weights.quantized_weights import MAX_FILE_BYTES

# What Python, threads and the tables of names take, whatever the size of the model.
NOISE_MB = 16


def test_quantizing_needs_one_file_and_a_few_times_the_largest_tensor(tmp_path):
    largest_mb = make_checkpoint(tmp_path / "model", hidden_size=1024, num_layers=16) / 1e6
    size_mb = sum(file.stat().st_size for file in (tmp_path / "model").iterdir()) / 1e6

    measured = load_in_child(tmp_path / "model", "int8", tmp_path / "cache")

    bound_mb = MAX_FILE_BYTES / 1e6 + 5 * largest_mb + NOISE_MB
    assert size_mb / 2 > 1.5 * bound_mb, "the result alone is far above the bound"
    assert measured["peak_mb"] < bound_mb
