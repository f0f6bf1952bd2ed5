"""Runs the model over texts in passes of limited size (chunked prefill), and continues them.

A token predicts the byte after it. So a text of n bytes takes n tokens: BOS, the token that marks
the beginning, and all bytes but the last.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from contract.grammar.vocabulary import BOS_ID, NUM_SPECIAL_IDS
from model.evabyte.kv_rows import KeysValues
from model.evabyte.modeling import EvaByteForCausalLM
from model.evabyte.transfers import to_device
from model.machine.pass_threads import threads_for
from model.packing import ROW_STEP, ContextRows, IntArray

ONLY_CONTEXT = np.zeros(1, dtype=np.int64)


def ids_of(texts: Sequence[bytes]) -> IntArray:
    """Return the ids of the bytes of `texts`, end to end: [T] int64."""
    return np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) + NUM_SPECIAL_IDS


@dataclass(frozen=True, slots=True)
class Tokens:
    """The ids of sequences, end to end."""

    ids: IntArray  # [T]
    lengths: IntArray  # [sequences]

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> "Tokens":
        """Return one sequence for each of `texts`, without BOS."""
        return cls(ids_of(texts), np.array([len(text) for text in texts], dtype=np.int64))

    @classmethod
    def after_bos(cls, texts: Sequence[bytes], *, is_last_read: bool = True) -> "Tokens":
        """Return BOS and each of `texts`; only with `is_last_read` also the last id of each."""
        places = [b"\0" + text if is_last_read else (b"\0" + text)[:-1] for text in texts]
        tokens = cls.of(places)
        is_begun = tokens.lengths > 0
        tokens.ids[(tokens.lengths.cumsum() - tokens.lengths)[is_begun]] = BOS_ID
        return tokens

    @classmethod
    def alone(cls, ids: IntArray) -> "Tokens":
        """Return one sequence."""
        return cls(ids, np.array([len(ids)]))

    def filled_up(self, num_added: int) -> "Tokens":
        """Lengthen the last sequence by `num_added` tokens."""
        if not num_added:
            return self
        lengths = self.lengths.copy()
        lengths[-1] += num_added
        return Tokens(np.append(self.ids, np.full(num_added, BOS_ID)), lengths)


@dataclass(frozen=True, slots=True)
class Contexts:
    """Token sequences that were read (prefill), with the KV cache to continue them."""

    num_tokens: IntArray  # [contexts]
    carried: list[KeysValues]  # one KV cache per layer
    last_hidden: Tensor  # [contexts, channels], predicts the byte after each context


@dataclass(frozen=True, slots=True)
class Reader:
    """A model and the most tokens that one pass reads.

    If it `is_reproducible`, texts that are continued share no pass (docs/numerics.md).
    """

    model: EvaByteForCausalLM
    pass_bytes: int
    is_reproducible: bool = False

    def cut_to_continue(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield for each pass the numbers of the texts that it reads to continue them."""
        if self.is_reproducible:
            return iter([[number] for number in range(len(lengths))])
        return cut_into_passes(lengths, self.pass_bytes)

    def read(self, texts: Sequence[bytes]) -> Iterator[Tensor]:
        """Yield the hidden states that predict each byte of `texts`: [bytes, channels] per pass.

        All texts are read in one pass. Only a single text longer than a pass is read in several
        passes (chunked prefill): whole windows at a time, and only their summaries are kept.
        """
        tokens = Tokens.after_bos(texts, is_last_read=False)
        if len(texts) > 1:
            yield self._run(tokens)[0]
            return
        for hidden, _ in self._read_alone(tokens.ids, is_kept=False):
            yield hidden

    def read_contexts(self, texts: Sequence[bytes]) -> Contexts:
        """Read `texts` to their ends, so that they can be continued; in the passes of `read`."""
        for _, contexts in self.read_to_ends(texts):  # noqa: B007 - the last pass counts
            pass
        return contexts

    def read_to_ends(self, texts: Sequence[bytes]) -> Iterator[tuple[Tensor, Contexts]]:
        """Yield for each pass the hidden states of its tokens, and the contexts read so far.

        Here a text has one token more than bytes: its last token predicts the byte after the text.
        The passes are those of `read`.
        """
        tokens = Tokens.after_bos(texts)
        if len(texts) > 1:
            yield self._run(tokens, is_kept=True)
            return
        yield from self._read_alone(tokens.ids, is_kept=True)

    def read_on(self, contexts: Contexts, context_of: IntArray, texts: Sequence[bytes]) -> Tensor:
        """Read each text after its context in one pass: text i continues context `context_of[i]`.

        Return the hidden states of their bytes, end to end: [bytes, channels].
        """
        return self._run(Tokens.of(texts), contexts, context_of)[0]

    def predict_on(
        self, contexts: Contexts, context_of: IntArray, texts: Sequence[bytes]
    ) -> Tensor:
        """Return the hidden states that predict each byte of `texts` there: [bytes, channels]."""
        hidden = self.read_on(contexts, context_of, [text[:-1] for text in texts])
        lengths = np.array([len(text) for text in texts])
        owner = np.repeat(np.arange(len(texts)), lengths)
        # The context's last token predicts a text's first byte, and each byte the one after it.
        rows = len(contexts.num_tokens) + np.arange(lengths.sum()) - owner - 1
        rows[lengths.cumsum() - lengths] = context_of
        states = torch.cat((contexts.last_hidden, hidden))
        return states.index_select(0, to_device(torch.from_numpy(rows), states.device))

    def _read_alone(self, ids: IntArray, *, is_kept: bool) -> Iterator[tuple[Tensor, Contexts]]:
        """Read one sequence in as many passes as needed; `is_kept` applies to the last pass."""
        window_size = self.model.config.window_size
        if len(ids) <= max(self.pass_bytes, window_size):
            yield self._run(Tokens.alone(ids), is_kept=is_kept)
            return
        step = max(self.pass_bytes // window_size, 1) * window_size
        contexts = None
        for start in range(0, len(ids), step):
            is_last = start + step >= len(ids)
            piece = Tokens.alone(ids[start : start + step])
            hidden, contexts = self._run(piece, contexts, is_kept=is_kept or not is_last)
            yield hidden, contexts

    @torch.inference_mode()
    def _run(
        self,
        tokens: Tokens,
        contexts: Contexts | None = None,
        context_of: IntArray = ONLY_CONTEXT,
        *,
        is_kept: bool = False,
    ) -> tuple[Tensor, Contexts]:
        """Run one pass; return the hidden states of its tokens and, if kept, the new contexts.

        A pass that is not kept is filled up to a whole step of rows behind its last token. No
        other token sees what is added there.
        """
        model, num_rows = self.model, len(tokens.ids)
        if not is_kept:
            tokens = tokens.filled_up(-num_rows % ROW_STEP)
        num_read, rows, carried = tokens.lengths, None, None
        if contexts is not None:
            rows = self._rows_of(contexts).by_sequence(context_of)
            num_read, carried = rows.num_tokens + tokens.lengths, contexts.carried
        layout = model.lay_out(tokens.lengths, rows, is_kept=is_kept)
        with self._threads(len(tokens.ids)):
            hidden, kept = model.model.read(torch.from_numpy(tokens.ids), layout, carried)
        if not is_kept:
            return hidden[:num_rows], Contexts(num_read, kept, hidden[:0])
        ends = torch.from_numpy(tokens.lengths.cumsum() - 1)
        # A copy: a view would keep all hidden states in memory.
        last = hidden.index_select(0, to_device(ends, hidden.device))
        return hidden, Contexts(num_read, kept, last)

    def _threads(self, num_rows: int) -> AbstractContextManager[None]:
        if self.model.device.type != "cpu":
            return nullcontext()
        config = self.model.config
        return threads_for(num_rows, config.hidden_size * config.intermediate_size)

    def _rows_of(self, contexts: Contexts) -> ContextRows:
        config = self.model.config
        return ContextRows.of(
            contexts.num_tokens, window_size=config.window_size, chunk_size=config.chunk_size
        )


def cut_into_passes(lengths: Sequence[int], pass_bytes: int) -> Iterator[list[int]]:
    """Yield the numbers of the texts of each pass; a text longer than a pass comes alone.

    The longest come first: texts of similar length share products, and a text that does not fit
    into memory fails before anything else was computed.
    """
    numbers: list[int] = []
    num_bytes = 0
    for number in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if numbers and num_bytes + lengths[number] > pass_bytes:
            yield numbers
            numbers, num_bytes = [], 0
        numbers.append(number)
        num_bytes += lengths[number]
    if numbers:
        yield numbers
