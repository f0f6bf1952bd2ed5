import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from model import EvaByteForCausalLM

# float32 sums in another order move these logits, of size 10, by no more.
TOLERANCE = 5e-5


def random_ids(*shape: int) -> torch.Tensor:
    ids = torch.randint(0, 320, shape, generator=torch.Generator().manual_seed(0))
    ids[..., 0] = 1
    return ids


@torch.no_grad()
def logits_of(model: EvaByteForCausalLM, ids: torch.Tensor, **options) -> torch.Tensor:
    return model(ids, **options).logits


@pytest.mark.parametrize("length", [1, 3, 4, 5, 15, 16, 17, 32, 33, 61])
def test_beginning_of_a_text_has_the_same_logits_as_the_text_cut_there(tiny_model, length):
    ids = random_ids(1, 64)

    cut, whole = logits_of(tiny_model, ids[:, :length]), logits_of(tiny_model, ids)
    torch.testing.assert_close(cut, whole[:, :length], rtol=0, atol=TOLERANCE)


def test_rows_padded_on_the_right_have_the_logits_of_single_runs(tiny_model):
    lengths = [1, 15, 16, 17, 40, 64]
    ids = random_ids(len(lengths), 64)
    mask = (torch.arange(64) < torch.tensor(lengths)[:, None]).long()
    padded = ids * mask

    together = logits_of(tiny_model, padded, attention_mask=mask.bool())

    for row, length in enumerate(lengths):
        alone = logits_of(tiny_model, ids[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row, :length], alone, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize("is_all_heads", [False, True])
def test_rows_padded_on_the_left_have_the_logits_of_single_runs(tiny_model, dtype, is_all_heads):
    lengths = [1, 15, 16, 17, 40, 64]
    ids = random_ids(len(lengths), 64)
    mask = torch.arange(64) >= 64 - torch.tensor(lengths)[:, None]
    options = {"return_all_pred_logits": is_all_heads}

    together = logits_of(tiny_model, ids * mask, attention_mask=mask.to(dtype), **options)

    for row, length in enumerate(lengths):
        alone = logits_of(tiny_model, ids[row : row + 1, 64 - length :], **options)[0]
        torch.testing.assert_close(together[row, 64 - length :], alone, rtol=0, atol=TOLERANCE)
        assert not together[row, : 64 - length].any()


@pytest.mark.parametrize("row", [[1, 0, 1], [0, 1, 0]], ids=["hole", "both sides"])
def test_padding_within_a_row_or_on_both_sides_is_refused(tiny_model, row):
    with pytest.raises(ValueError, match="one side"):
        tiny_model(random_ids(2, 3), attention_mask=torch.tensor([[0, 1, 1], row]))


def test_text_is_generated_greedily(tiny_model):
    """Each row gets the ids that single steps choose, across windows, whatever its padding."""
    lengths = [3, 15, 30]
    ids = random_ids(len(lengths), 30)
    mask = (torch.arange(30) >= 30 - torch.tensor(lengths)[:, None]).long()
    limits = {"max_new_tokens": 6, "eos_token_id": None, "do_sample": False}

    written = tiny_model.generate(ids * mask, attention_mask=mask, **limits)

    for row, length in enumerate(lengths):
        expected = ids[row : row + 1, 30 - length :]
        for _ in range(6):
            likeliest = logits_of(tiny_model, expected)[:, -1:].argmax(dim=-1)
            expected = torch.cat((expected, likeliest), dim=1)
        assert written[row, 30 - length :].tolist() == expected[0].tolist()


def test_generation_ends_at_the_end_of_text(tiny_model):
    ids = random_ids(1, 9)
    first = int(logits_of(tiny_model, ids)[0, -1].argmax())
    limits = {"max_new_tokens": 20, "eos_token_id": first, "pad_token_id": 0}
    written = tiny_model.generate(ids, attention_mask=torch.ones_like(ids), **limits)
    assert written[0].tolist() == [*ids[0].tolist(), first]


def test_generation_with_a_cache_is_refused(tiny_model):
    with pytest.raises(ValueError, match="use_cache"):
        tiny_model.generate(random_ids(1, 3), max_new_tokens=2, use_cache=True)


def test_cache_is_refused(tiny_model):
    with pytest.raises(ValueError, match="use_cache"):
        tiny_model(random_ids(1, 3), use_cache=True)


def test_heads_are_blocks_of_rows(tiny_model):
    ids = random_ids(2, 20)

    head_0, heads = (
        logits_of(tiny_model, ids),
        logits_of(tiny_model, ids, return_all_pred_logits=True),
    )

    assert head_0.shape == (2, 20, 320)
    assert heads.shape == (2, 20, 3, 320)
    torch.testing.assert_close(heads[:, :, 0], head_0, rtol=0, atol=TOLERANCE)
    hidden = tiny_model.model(ids[0], tiny_model.lay_out([20])).detach()
    torch.testing.assert_close(
        heads[0, :, 2],
        hidden @ tiny_model.lm_head.weight[640:960].T.detach(),
        rtol=0,
        atol=TOLERANCE,
    )


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (1, 1)], ids=str)
def test_no_tokens_have_no_logits(tiny_model, shape):
    ids = torch.ones(shape, dtype=torch.int64)

    assert logits_of(tiny_model, ids).shape == (*shape, 320)
    assert logits_of(tiny_model, ids, return_all_pred_logits=True).shape == (*shape, 3, 320)


def test_auto_class_loads_it_although_the_folder_names_remote_code(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"auto_map": {"AutoModelForCausalLM": "modeling_evabyte.X"}, "return_dict": False}
    (folder / "config.json").write_text(json.dumps(fields))

    model = AutoModelForCausalLM.from_pretrained(folder)

    assert isinstance(model, EvaByteForCausalLM)
    assert logits_of(model, random_ids(1, 4)).shape == (1, 4, 320)
    assert isinstance(model(random_ids(1, 4), return_dict=False), tuple)


def test_saved_model_loads_with_the_same_logits(tiny_model, tiny_checkpoint):
    loaded = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)

    assert torch.equal(
        logits_of(loaded, random_ids(1, 40)), logits_of(tiny_model, random_ids(1, 40))
    )


def test_logits_are_float32_in_a_bfloat16_model(tiny_checkpoint):
    loaded = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.bfloat16)

    assert loaded.dtype == torch.bfloat16
    assert logits_of(loaded, random_ids(1, 40)).dtype == torch.float32


def test_every_parameter_takes_part(tiny_model):
    """In a text of two windows each weight has a gradient: none is dead, none is missed."""
    tiny_model(random_ids(1, 33), return_all_pred_logits=True).logits.square().sum().backward()
    try:
        for name, parameter in tiny_model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    finally:
        tiny_model.zero_grad()
