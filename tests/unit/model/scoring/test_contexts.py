"""Passes that continue what earlier passes read give what one pass over all tokens gives."""

import numpy as np
import pytest
import torch

from model.packing import ContextRows, lay_out

WINDOW, CHUNK = 16, 4
# float32 sums in another order move these hidden states, of size 1, by no more.
TOLERANCE = 2e-5
LENGTHS = (1, 2, 3, 4, 5, 15, 16, 17, 18, 20, 31, 32, 33, 50)

token_ids = torch.randint(0, 320, (120,), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def read(model, ids, lengths, *, context_lengths=None, context_of=None, carried=None, is_kept):
    contexts = None
    if context_lengths is not None:
        rows = ContextRows.of(np.array(context_lengths), window_size=WINDOW, chunk_size=CHUNK)
        contexts = rows.by_sequence(np.array(context_of))
    layout = lay_out(
        lengths, window_size=WINDOW, chunk_size=CHUNK, contexts=contexts, is_kept=is_kept
    )
    return model.model.read(ids, layout, carried)


def whole(model, ids: torch.Tensor) -> torch.Tensor:
    return read(model, ids, [len(ids)], is_kept=False)[0]


@pytest.mark.parametrize("context", LENGTHS)
@pytest.mark.parametrize("own", LENGTHS)
def test_sequence_after_its_context_is_read_as_in_one_pass(tiny_model, context, own):
    ids = token_ids[: context + own]
    _, carried = read(tiny_model, ids[:context], [context], is_kept=True)

    hidden, _ = read(
        tiny_model,
        ids[context:],
        [own],
        context_lengths=[context],
        context_of=[0],
        carried=carried,
        is_kept=False,
    )

    expected = whole(tiny_model, ids)[context:]
    torch.testing.assert_close(hidden, expected, rtol=0, atol=TOLERANCE)
