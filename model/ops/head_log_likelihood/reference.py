"""Defines the scores of the next-byte head: log-probability, rank, entropy and top k."""

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor


@dataclass(frozen=True, slots=True)
class HeadScores:
    """Scores of N targets under distributions over V ids; natural logarithms, float32."""

    log_prob: Tensor  # [N], log-probability of the target (its surprisal, negated)
    rank: Tensor  # [N] int64, 1 = no id is likelier than the target
    entropy: Tensor | None  # [N]
    variance: Tensor | None  # [N], variance of the log-probability of a drawn id
    top_ids: Tensor | None  # [N, top_k] int64, likeliest first, equally likely ones by id
    top_log_probs: Tensor | None  # [N, top_k]


def head_log_likelihood(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, with_moments: bool, top_k: int
) -> HeadScores:
    """Project `hidden` [N, channels] by `weight` [V, channels] and score `targets` [N] int64.

    `with_moments` adds entropy and variance; `top_k` above 0 adds that many likeliest ids.
    """
    logits = F.linear(hidden, weight).float()
    log_probs = logits.log_softmax(dim=-1)  # [N, V]
    target = log_probs.gather(1, targets[:, None])  # [N, 1]
    entropy = variance = top_ids = top_log_probs = None
    if with_moments:
        probs = log_probs.exp()
        mean = (probs * log_probs).sum(dim=-1)
        entropy = -mean
        variance = (probs * (log_probs - mean[:, None]).square()).sum(dim=-1)
    if top_k:
        # A stable sort: topk has no fixed order of equal values, which are common in bfloat16.
        top_log_probs, top_ids = log_probs.sort(dim=-1, descending=True, stable=True)
        top_log_probs, top_ids = top_log_probs[:, :top_k], top_ids[:, :top_k]
    return HeadScores(
        log_prob=target[:, 0],
        rank=1 + (log_probs > target).sum(dim=-1),
        entropy=entropy,
        variance=variance,
        top_ids=top_ids,
        top_log_probs=top_log_probs,
    )
