"""Implements EvaByte's forward pass for training: rectangular batches, all heads, autocast.

Parameters bear the names and shapes of the authors' published checkpoint
(github.com/OpenEvaByte/evabyte at 432331ad), so the state dict is the checkpoint. It computes the
same function as `model.evabyte.modeling`; a test compares the two. Unlike that one it takes
sequences of equal length, a multiple of the window, and keeps everything in shapes that
torch.compile can fuse.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from contract.grammar.vocabulary import VOCABULARY_SIZE

# Added to a score that must not be seen: exp of it is 0, and it is exact in bfloat16's range.
_MASKED = -1e4


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. The defaults are the demo checkpoint's: 5.56 million parameters."""

    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    intermediate_size: int = 704
    window_size: int = 256
    chunk_size: int = 16
    num_pred_heads: int = 8
    vocab_size: int = VOCABULARY_SIZE
    rope_theta: float = 100_000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads


class Positions(nn.Module):
    """What depends on positions only: rotary tables and masks for sequences of `length` bytes.

    `cos`, `sin`: [T, D/2]. `mask`: [T/W, W, C + W] holds 0 where a query may look at a chunk
    summary (first C) or at a position of its own window, and a large negative number elsewhere.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor

    def __init__(self, shape: Shape, length: int, dtype: torch.dtype) -> None:
        super().__init__()
        W = shape.window_size  # noqa: N806
        num_windows, remainder = divmod(length, W)
        if remainder or not num_windows:
            raise ValueError(f"length {length} is no multiple of window_size {W}")
        exponents = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        angles = torch.outer(torch.arange(length).float(), 1.0 / shape.rope_theta**exponents)
        # The last window's chunks are seen by nobody.
        chunk_window = torch.arange((length - W) // shape.chunk_size) * shape.chunk_size // W
        is_past = chunk_window < torch.arange(num_windows)[:, None, None]
        is_seen = torch.cat(
            [
                is_past.expand(num_windows, W, len(chunk_window)),
                torch.ones(W, W).tril().bool().expand(num_windows, W, W),
            ],
            -1,
        )
        mask = torch.zeros(is_seen.shape).masked_fill(~is_seen, _MASKED)
        for name, table in {"cos": angles.cos(), "sin": angles.sin(), "mask": mask}.items():
            self.register_buffer(name, table.to(dtype), persistent=False)


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * (1 + weight), in float32 (arXiv:1910.07467, offset form)."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x: [..., hidden_size]; the result has x's dtype."""
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return ((1 + self.weight) * y).to(x.dtype)


class EvaAttention(nn.Module):
    """Exact attention inside a window, and over summaries of the chunks of earlier windows.

    Source: arXiv:2302.04542 in the deterministic form of the authors' code, one summary per chunk.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.shape = shape
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)
        per_head = (1, shape.num_heads, 1, 1, shape.head_dim)
        self.adaptive_phi = nn.Parameter(torch.randn(per_head) * shape.head_dim**-0.5)
        self.adaptive_mu_k = nn.Parameter(torch.randn(per_head) * shape.head_dim**-0.5)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """Attend over x: [B, T, hidden_size]."""
        B, T, size = x.shape  # noqa: N806
        H, D, W = self.shape.num_heads, self.shape.head_dim, self.shape.window_size  # noqa: N806
        q = _rotate(self._heads(self.q_proj(x)), positions) * D**-0.5
        k = _rotate(self._heads(self.k_proj(x)), positions)
        v = self._heads(self.v_proj(x))
        key_summaries, value_summaries = self._summarize(k, v)
        keys = self._per_window(key_summaries, k)  # [B*H*T/W, C + W, D]
        values = self._per_window(value_summaries, v)
        scores = torch.bmm(q.reshape(-1, W, D), keys.mT)
        scores = scores.view(B * H, *positions.mask.shape) + positions.mask
        weights = scores.softmax(-1).view(-1, *positions.mask.shape[1:])
        seen = torch.bmm(weights, values).view(B, H, T, D)
        return self.o_proj(seen.transpose(1, 2).reshape(B, T, size))

    def _heads(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape  # noqa: N806
        return x.view(B, T, self.shape.num_heads, self.shape.head_dim).transpose(1, 2)

    def _per_window(self, summaries: Tensor, exact: Tensor) -> Tensor:
        """Put all summaries [B, H, C, D] before the positions of each window of [B, H, T, D]."""
        B, H, T, D = exact.shape  # noqa: N806
        windows = exact.reshape(B, H, T // self.shape.window_size, self.shape.window_size, D)
        repeated = summaries.unsqueeze(2).expand(-1, -1, windows.shape[2], -1, -1)
        return torch.cat([repeated, windows], -2).view(-1, summaries.shape[2] + windows.shape[3], D)

    def _summarize(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return key and value summaries [B, H, C, D] of all chunks but the last window's."""
        B, H, T, D = k.shape  # noqa: N806
        end = T - self.shape.window_size
        chunks = (B, H, end // self.shape.chunk_size, self.shape.chunk_size, D)
        keys = k[:, :, :end].reshape(chunks).float()
        values = v[:, :, :end].reshape(chunks).float()
        key_logits = (keys * self.adaptive_mu_k).sum(-1)
        value_logits = (keys * self.adaptive_phi).sum(-1) - 0.5 * keys.pow(2).sum(-1)
        key_weights = key_logits.softmax(-1).unsqueeze(-1)
        value_weights = (value_logits * D**-0.5).softmax(-1).unsqueeze(-1)
        key_summaries = (key_weights * keys).sum(-2)
        value_summaries = (value_weights * values).sum(-2)
        return key_summaries.to(k.dtype), value_summaries.to(v.dtype)


def _rotate(x: Tensor, positions: Positions) -> Tensor:
    """Rotate the pairs (i, i + D/2) of x: [B, H, T, D] (RoPE, arXiv:2104.09864)."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = positions.cos, positions.sin
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (SwiGLU, arXiv:2002.05202)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x: [..., hidden_size] to the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = EvaAttention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """Map the stream x: [B, T, hidden_size] to the next one."""
        x = x + self.self_attn(self.input_layernorm(x), positions)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Everything below the prediction heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, ids: Tensor, positions: Positions, num_layers: int | None = None) -> Tensor:
        """Map ids: [B, T] int64 to hidden states [B, T, hidden_size] in the tables' dtype.

        `num_layers` leaves out the layers above, which start as the identity.
        """
        x = self.embed_tokens(ids).to(positions.cos.dtype)
        for layer in self.layers[:num_layers]:
            x = layer(x, positions)
        return self.norm(x)


class TrainingEvaByte(nn.Module):
    """EvaByte with its `num_pred_heads` heads: head h at position t predicts id t + 1 + h."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        self.lm_head = nn.Linear(
            shape.hidden_size, shape.vocab_size * shape.num_pred_heads, bias=False
        )
        self._initialize()

    def _initialize(self) -> None:
        """Start as the identity: each branch ends in a zero matrix, and so do the heads."""
        nn.init.normal_(self.model.embed_tokens.weight, std=0.3)
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                nn.init.zeros_(weight)
            elif name.endswith("_proj.weight"):
                nn.init.normal_(weight, std=0.5 * weight.shape[1] ** -0.5)

    def logits(self, ids: Tensor, positions: Positions) -> Tensor:
        """Return all heads' logits [B, T, num_pred_heads, V] of ids: [B, T]."""
        out = self.lm_head(self.model(ids, positions))
        return out.view(*ids.shape, self.shape.num_pred_heads, self.shape.vocab_size)

    def losses(
        self,
        ids: Tensor,
        sampled: Tensor,
        positions: Positions,
        num_layers: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropies of head 0 and of the other heads, in nats.

        `ids`: [B, T + num_pred_heads], inputs followed by the targets of the last positions.
        `sampled`: [N], the positions on which the other heads train. They read the trunk without
        changing it: they cost head 0 nothing. `num_layers` is that of `Trunk.forward`.
        """
        V, T = self.shape.vocab_size, len(positions.cos)  # noqa: N806
        hidden = self.model(ids[:, :T], positions, num_layers)
        weight = self.lm_head.weight
        first = F.linear(hidden, weight[:V]).float()
        loss = F.cross_entropy(first.flatten(0, 1), ids[:, 1 : T + 1].flatten())
        others = F.linear(hidden.detach()[:, sampled], weight[V:]).float()
        targets = [ids[:, sampled + 1 + h] for h in range(1, self.shape.num_pred_heads)]
        other_loss = F.cross_entropy(others.view(-1, V), torch.stack(targets, -1).flatten())
        return loss, other_loss
