"""The training network computes EvaByte, and its losses are what they say."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import AutoModelForCausalLM

import model  # noqa: F401 - registers EvaByte with the Auto classes
from model.training.export import write_checkpoint
from model.training.network import Positions, Shape, TrainingEvaByte

TINY = Shape(
    hidden_size=64,
    num_layers=2,
    num_heads=2,
    intermediate_size=96,
    window_size=32,
    chunk_size=8,
    num_pred_heads=3,
)


def random_network(shape: Shape = TINY) -> TrainingEvaByte:
    torch.manual_seed(3)
    network = TrainingEvaByte(shape)
    with torch.no_grad():
        # The norms start at 0 and the heads as well: random values show a wrong formula.
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return network


def random_ids(num_rows: int, num_ids: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(TINY.vocab_size, (num_rows, num_ids), generator=generator)


@pytest.mark.parametrize("num_windows", [1, 2, 5])
def test_logits_equal_those_of_the_exported_checkpoint(tmp_path, num_windows):
    network = random_network()
    length = num_windows * TINY.window_size
    ids = random_ids(2, length)
    write_checkpoint(network.state_dict(), TINY, tmp_path, dtype=torch.float32)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)

    with torch.inference_mode():
        ours = network.logits(ids, Positions(TINY, length, torch.float32))
        theirs = exported(ids, return_all_pred_logits=True).logits

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_losses_are_the_cross_entropies_of_all_heads():
    network = random_network()
    length = 2 * TINY.window_size
    ids = random_ids(2, length + TINY.num_pred_heads)
    sampled = torch.tensor([1, 5, 40, length - 1])
    positions = Positions(TINY, length, torch.float32)

    loss, other_loss = network.losses(ids, sampled, positions)

    logits = network.logits(ids[:, :length], positions)
    by_head = [
        F.cross_entropy(logits[row, t, head], ids[row, t + 1 + head])
        for head in (1, 2)
        for row in range(2)
        for t in sampled.tolist()
    ]
    expected = F.cross_entropy(logits[:, :, 0].flatten(0, 1), ids[:, 1 : length + 1].flatten())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(other_loss, torch.stack(by_head).mean())


def test_other_heads_leave_the_trunk_alone():
    network = random_network()
    length = TINY.window_size
    ids = random_ids(1, length + TINY.num_pred_heads)

    _, other_loss = network.losses(
        ids, torch.arange(0, length, 4), Positions(TINY, length, torch.float32)
    )
    other_loss.backward()

    assert all(parameter.grad is None for parameter in network.model.parameters())
    assert network.lm_head.weight.grad[: TINY.vocab_size].abs().max() == 0
    assert network.lm_head.weight.grad[TINY.vocab_size :].abs().max() > 0


def test_fresh_layers_are_the_identity():
    network = TrainingEvaByte(TINY)
    length = TINY.window_size
    ids = random_ids(1, length)
    positions = Positions(TINY, length, torch.float32)

    torch.testing.assert_close(
        network.model(ids, positions, num_layers=1), network.model(ids, positions), rtol=0, atol=0
    )


def test_length_must_be_a_multiple_of_the_window():
    with pytest.raises(ValueError, match="window_size 32"):
        Positions(TINY, 33, torch.float32)


def test_demo_shape_has_as_many_parameters_as_fit_twelve_megabytes():
    with torch.device("meta"):
        network = TrainingEvaByte(Shape())

    assert sum(x.numel() for x in network.parameters()) == 5_560_576
