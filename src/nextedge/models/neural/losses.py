"""Losses of the trained models, over scores of pairs or over embeddings of a batch.

All take tensors and return a scalar tensor. B pairs, d dimensions, N negatives a pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextedge.models.distributed.collectives import Share
from nextedge.types import IndexArray

if TYPE_CHECKING:
    from torch import Tensor


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of ``-ln σ(positive) - ln σ(-negative)``.

    Args:
        positive: [B] scores of edges.
        negative: [B, N] scores of pairs that are none.
    """
    from torch.nn.functional import softplus

    return softplus(-positive).mean() + softplus(negative).mean()


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of ``-ln σ(positive - negative)`` (Rendle et al., UAI 2009); shapes [B], [B, N]."""
    from torch.nn.functional import softplus

    return softplus(negative - positive[:, None]).mean()


def triplet_margin(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean of ``max(0, margin - positive + hardest negative)``; shapes [B], [B, N]."""
    return (margin - positive + negative.amax(dim=1)).clamp_min(0.0).mean()


def sampled_softmax(
    query: Tensor,
    candidate: Tensor,
    query_id: Tensor,
    candidate_id: Tensor,
    log_frequency: Tensor,
    known: Tensor | None = None,
    *,
    temperature: float,
    extra: Tensor | None = None,
    share: Share | None = None,
) -> Tensor:
    """Softmax over the candidates of the batch, and of further negatives.

    A candidate enters a batch as often as it has edges, so its logit is lowered by the log of
    its frequency (Yi et al.: "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations", RecSys 2019, section 3.2). Other rows with the same candidate, or the
    query itself, or an edge that is known, are no negatives and are masked.

    Args:
        query, candidate: [B, d], row by row an edge; of ``query`` the share's rows alone.
        query_id, candidate_id: int64[B].
        log_frequency: [B], ln of the share of all edges that each candidate has.
        known: bool[B, B], where row's query and column's candidate are an edge, or None.
        temperature: by which dot products are divided.
        extra: [B, N] dot products with negatives drawn elsewise, not corrected, or None; of
            the share's rows alone.
        share: rows whose part of the mean over the batch is wanted; None = all.
    """
    import torch

    logit = query @ candidate.T / temperature - log_frequency[None, :]
    place = torch.arange(len(candidate), device=query.device)
    goal = place if share is None else place[share.rows]
    same = candidate_id[goal][:, None] == candidate_id[None, :]
    if known is not None:
        same = same | known
    logit = logit.masked_fill(same & (goal[:, None] != place[None, :]), float("-inf"))
    if extra is not None:
        logit = torch.cat((logit, extra / temperature - log_frequency.mean()), dim=1)
    mean = torch.nn.functional.cross_entropy(logit, goal)
    return mean if share is None else mean * share.part


def log_frequency(target: IndexArray, targets: int) -> Tensor:
    """float32[M]: ln of each candidate's share of the edges, one more counted for each."""
    import torch

    count = np.bincount(target, minlength=targets) + 1.0
    return torch.from_numpy(np.log(count / count.sum()).astype(np.float32))


def scores_of_drawn(query: Tensor, candidate: Tensor, drawn: IndexArray) -> Tensor | None:
    """[B, N] dot products with negatives that were drawn, or None where none were.

    Args:
        query: [B, d].
        candidate: vectors of ``drawn``, flat.
        drawn: int32[N] shared by the batch, or int32[B, N] a row's own.
    """
    import torch

    if not drawn.size:
        return None
    if drawn.ndim == 1:
        return query @ candidate.T
    return torch.einsum("bd,bnd->bn", query, candidate.reshape(*drawn.shape, -1))
