"""Implements EvaByte (OpenEvaByte/evabyte at 432331ad) as a transformers model.

Modules have the names of the published checkpoint. Sequences lie end to end in one row of `T`
tokens, see `model/packing.py`; only attention knows where a sequence ends.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutput

from model.evabyte.configuration import EvaByteConfig
from model.evabyte.kv_rows import KeysValues
from model.evabyte.linear_layers import QuantizedLinear, widen_products
from model.evabyte.pass_plan import PassPlan, plan_pass
from model.ops.backend import Backend
from model.ops.chunk_summaries import chunk_summaries
from model.ops.eva_attention import eva_attention
from model.ops.quantized_rows import QuantizedRows
from model.ops.rms_norm import add_rms_norm, add_rms_norm_quantized
from model.ops.rotary import rotate_keys
from model.ops.swiglu import swiglu, swiglu_quantized
from model.packing import ContextRows, IntArray, PackedLayout, lay_out

# Normalised rows: in the type of the stream, or quantized where int8 or fp8 products read them.
Rows = Tensor | QuantizedRows


class EvaByteRMSNorm(nn.Module):
    """RMS normalisation with the model's offset and epsilon."""

    def __init__(self, config: EvaByteConfig) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.add_unit_offset = config.norm_add_unit_offset
        self.weight = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, x: Tensor, branch: Tensor | None, backend: Backend) -> tuple[Tensor, Tensor]:
        """Return `x + branch` [T, channels] and its normalisation."""
        return add_rms_norm(x, branch, self.weight, **self._options, backend=backend)

    def for_layer(
        self, layer: nn.Module, x: Tensor, branch: Tensor | None, backend: Backend
    ) -> tuple[Tensor, Rows]:
        """Compute `forward`; quantize the normalised rows if the linear `layer` reads such."""
        if isinstance(layer, QuantizedLinear):
            options = {**self._options, "values_dtype": layer.values_dtype}
            return add_rms_norm_quantized(x, branch, self.weight, **options, backend=backend)
        return self(x, branch, backend)

    @property
    def _options(self) -> dict[str, Any]:
        return {"eps": self.eps, "add_unit_offset": self.add_unit_offset}


class EvaByteAttention(nn.Module):
    """Attention over the tokens of a window and the chunk summaries of earlier windows."""

    def __init__(self, config: EvaByteConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.chunk_size = config.chunk_size
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.qkv_proj: nn.Module | None = None  # the first three as one, see `fuse_products`
        shape = (1, self.num_heads, 1, 1, self.head_dim)  # as published
        self.adaptive_phi = nn.Parameter(torch.empty(shape))
        self.adaptive_mu_k = nn.Parameter(torch.empty(shape))

    @property
    def first_layer(self) -> nn.Module:
        """A linear layer that reads the normalised rows."""
        return self.q_proj if self.qkv_proj is None else self.qkv_proj

    def forward(
        self, x: Rows, plan: PassPlan, carried: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """Attend; x: [T, channels]. Return also the KV cache rows that later passes need.

        `carried` holds the KV cache rows of the contexts that the sequences continue.
        """
        q, k, v = (rows.unflatten(1, (self.num_heads, self.head_dim)) for rows in self._project(x))
        own = KeysValues(rotate_keys(k, *plan.rotary, backend=plan.backend), v)
        past = self._past(own, plan, carried)
        attended = eva_attention(q, *own, *past, plan.attention, rotary=plan.rotary)
        rows = past.followed_by(own) if len(plan.kept_rows) else own
        return self.o_proj(attended.flatten(1)), rows.take(plan.kept_rows)

    def _project(self, x: Rows) -> Sequence[Tensor]:
        """Return queries, keys and values, each [T, channels]."""
        if self.qkv_proj is not None:
            return self.qkv_proj(x).chunk(3, dim=1)
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def _past(self, own: KeysValues, plan: PassPlan, carried: KeysValues | None) -> KeysValues:
        """Return the past: the rows that windows see besides their own tokens."""
        chunked = own
        if carried is not None and len(plan.split_chunk_rows):
            split_chunks = carried.followed_by(own).take(plan.split_chunk_rows)
            chunked = own.followed_by(split_chunks)
        summaries = KeysValues(
            *chunk_summaries(
                *chunked,
                plan.chunk_starts,
                chunk_size=self.chunk_size,
                mu=self.adaptive_mu_k.view(self.num_heads, self.head_dim),
                phi=self.adaptive_phi.view(self.num_heads, self.head_dim),
                backend=plan.backend,
            )
        )
        if carried is None:
            return summaries
        if len(plan.past_rows) == len(carried.keys):
            return carried
        return carried.followed_by(summaries).take(plan.past_rows)


class EvaByteMLP(nn.Module):
    """The gated feed-forward layer."""

    def __init__(self, config: EvaByteConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.gate_up_proj: nn.Module | None = None  # the first two as one, see `fuse_products`

    @property
    def first_layer(self) -> nn.Module:
        """A linear layer that reads the normalised rows."""
        return self.gate_proj if self.gate_up_proj is None else self.gate_up_proj

    def forward(self, x: Rows, backend: Backend) -> Tensor:
        """Transform `x` [T, channels]."""
        gate, up = self._project(x)
        if isinstance(self.down_proj, QuantizedLinear):
            dtype = self.down_proj.values_dtype
            return self.down_proj(swiglu_quantized(gate, up, values_dtype=dtype, backend=backend))
        return self.down_proj(swiglu(gate, up, backend=backend))

    def _project(self, x: Rows) -> Sequence[Tensor]:
        """Return gate and up, each [T, channels]."""
        if self.gate_up_proj is not None:
            return self.gate_up_proj(x).chunk(2, dim=1)
        return self.gate_proj(x), self.up_proj(x)


class EvaByteDecoderLayer(nn.Module):
    """One layer: attention and feed-forward, each with a norm before and an addition after."""

    def __init__(self, config: EvaByteConfig) -> None:
        super().__init__()
        self.input_layernorm = EvaByteRMSNorm(config)
        self.self_attn = EvaByteAttention(config)
        self.post_attention_layernorm = EvaByteRMSNorm(config)
        self.mlp = EvaByteMLP(config)

    def forward(
        self, x: Tensor, branch: Tensor | None, plan: PassPlan, carried: KeysValues | None
    ) -> tuple[Tensor, Tensor, KeysValues]:
        """Return stream and branch, both [T, channels], and the kept KV cache rows.

        Each norm first adds the branch before it to the stream. The first norm of a layer adds
        the feed-forward of the layer before.
        """
        attention, mlp, backend = self.self_attn, self.mlp, plan.backend
        x, rows = self.input_layernorm.for_layer(attention.first_layer, x, branch, backend)
        attended, kept = attention(rows, plan, carried)
        x, rows = self.post_attention_layernorm.for_layer(mlp.first_layer, x, attended, backend)
        return x, mlp(rows, backend), kept


class EvaByteModel(nn.Module):
    """The layers between the ids and the prediction heads."""

    def __init__(self, config: EvaByteConfig) -> None:
        super().__init__()
        self.config = config
        self.backend: Backend = "torch"  # has gradients and runs everywhere
        self.stream_dtype: torch.dtype | None = (
            None  # type of activations; None: type of the weights
        )
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = [EvaByteDecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = EvaByteRMSNorm(config)

    def forward(self, input_ids: Tensor, layout: PackedLayout) -> Tensor:
        """Return the normalised last hidden states, [T, channels], of `input_ids` [T] int64.

        `input_ids` may be on the host, wherever the weights are.
        """
        return self.read(input_ids, layout)[0]

    def read(
        self,
        input_ids: Tensor,
        layout: PackedLayout,
        carried: Sequence[KeysValues] | None = None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Return the result of `forward`, and for each layer the KV cache rows that are kept.

        `carried` holds for each layer the KV cache rows of the contexts that sequences continue.
        """
        return self.run(self.plan(input_ids, layout), carried)

    def plan(self, input_ids: Tensor, layout: PackedLayout) -> PassPlan:
        """Return all that a pass over `layout` needs besides weights, on their device."""
        weight = self.embed_tokens.weight
        embedded = self.stream_dtype or weight.dtype, weight.device
        return plan_pass(layout, self.config, input_ids, embedded=embedded, backend=self.backend)

    def run(
        self, plan: PassPlan, carried: Sequence[KeysValues] | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Compute the layers of a planned pass; return what `read` does.

        With Triton's kernels it touches no memory of the host.
        """
        x, branch, kept = self.embed_tokens(plan.input_ids).to(self.stream_dtype), None, []
        for number, layer in enumerate(self.layers):
            of_layer = None if carried is None else carried[number]
            x, branch, kept_rows = layer(x, branch, plan, of_layer)
            kept.append(kept_rows)
        _, normalised = self.norm(x, branch, self.backend)
        return normalised, kept


class EvaBytePreTrainedModel(PreTrainedModel):
    """Base class that transformers requires: configuration, prefix, initial weights."""

    config_class = EvaByteConfig
    base_model_prefix = "model"
    _no_split_modules = ("EvaByteDecoderLayer",)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, EvaByteRMSNorm):
            init.constant_(module.weight, 0.0 if module.add_unit_offset else 1.0)
        elif isinstance(module, EvaByteAttention):
            init.normal_(module.adaptive_phi, std=module.head_dim**-0.5)
            init.normal_(module.adaptive_mu_k, std=module.head_dim**-0.5)
        else:
            super()._init_weights(module)


class EvaByteForCausalLM(EvaBytePreTrainedModel, GenerationMixin):
    """EvaByte with its prediction heads: head h predicts the id h + 1 positions ahead."""

    def __init__(self, config: EvaByteConfig) -> None:
        super().__init__(config)
        self.model = EvaByteModel(config)
        num_rows = config.vocab_size * config.num_pred_heads
        self.lm_head = nn.Linear(config.hidden_size, num_rows, bias=False)
        self.post_init()

    @property
    def next_id_weight(self) -> Tensor:
        """The weight of head 0, [V, channels], in the type of the activations."""
        return self.lm_head.weight[: self.config.vocab_size].to(self.model.stream_dtype)

    def compute_in_float32(self) -> None:
        """Compute in float32, and keep the weights in their type."""
        self.model.stream_dtype = torch.float32
        widen_products(self)

    def lay_out(
        self,
        lengths: Sequence[int] | IntArray,
        contexts: ContextRows | None = None,
        *,
        is_kept: bool = False,
    ) -> PackedLayout:
        """Cut sequences of `lengths` tokens into this model's windows and chunks.

        The other arguments are those of `packing.lay_out`.
        """
        return lay_out(
            lengths,
            window_size=self.config.window_size,
            chunk_size=self.config.chunk_size,
            contexts=contexts,
            is_kept=is_kept,
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        return_all_pred_logits: bool = False,
        use_cache: bool = False,
        return_dict: bool = True,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Return the logits of every position of `input_ids` [B, T] int64.

        `.logits` is [B, T, 320] of head 0, or [B, T, heads, 320] with `return_all_pred_logits`;
        float32 where the configuration says `fp32_logits`. No position sees a later one, so an
        `attention_mask` [B, T] that pads rows on the right changes nothing. Padding on the left is
        not read, and its logits are 0.

        Raises:
            ValueError: the mask hides a position between visible ones, or a cache is asked for.
        """
        _refuse_cache(use_cache)
        is_text = None if attention_mask is None else _after_left_padding(attention_mask)
        if is_text is None:
            num_rows, num_tokens = input_ids.shape
            logits = self._packed_logits(
                input_ids.reshape(-1), [num_tokens] * num_rows, is_all_heads=return_all_pred_logits
            ).unflatten(0, input_ids.shape)
        else:
            lengths = is_text.sum(dim=1).cpu().numpy()
            found = self._packed_logits(
                input_ids[is_text], lengths, is_all_heads=return_all_pred_logits
            )
            logits = found.new_zeros(*input_ids.shape, *found.shape[1:])
            logits[is_text] = found
        output = CausalLMOutput(logits=logits)
        return output if return_dict else output.to_tuple()

    def generate(self, *args: Any, use_cache: bool = False, **kwargs: Any) -> Any:
        """Generate as `GenerationMixin` does, but without a cache: each id reads the whole text.

        Pad prompts of several lengths on the left.

        Raises:
            ValueError: a cache is asked for.
        """
        _refuse_cache(use_cache)
        return super().generate(*args, use_cache=False, **kwargs)

    def _packed_logits(
        self, input_ids: Tensor, lengths: Sequence[int] | IntArray, *, is_all_heads: bool
    ) -> Tensor:
        """Return the logits of sequences that lie end to end: [T, 320] or [T, heads, 320]."""
        hidden = self.model(input_ids, self.lay_out(lengths))
        if is_all_heads:
            shape = self.config.num_pred_heads, self.config.vocab_size
            logits = self.lm_head(hidden).unflatten(1, shape)
        else:
            logits = F.linear(hidden, self.next_id_weight)
        return logits.float() if self.config.fp32_logits else logits


def _refuse_cache(use_cache: bool) -> None:
    if use_cache:
        raise ValueError("use_cache is set; this model keeps no cache between calls, leave it out")


def _after_left_padding(attention_mask: Tensor) -> Tensor | None:
    """Return which positions [B, T] are not padding; None if no row is padded on the left.

    Raises:
        ValueError: a row has padding between visible positions.
    """
    is_text = attention_mask.bool()
    steps = is_text.long().diff(dim=1)
    if not (steps > 0).any():
        return None
    if ((steps != 0).sum(dim=1) > 1).any():
        raise ValueError("attention_mask hides positions between others; pad each row on one side")
    return is_text
