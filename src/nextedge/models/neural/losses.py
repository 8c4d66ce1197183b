"""Losses of the trained models, over scores of pairs or over embeddings of a batch.

All take tensors and return a scalar tensor. B pairs, b the pairs of this process's share,
d dimensions, N negatives of a pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from nextedge.models.distributed.collectives import Share
from nextedge.types import IndexArray

if TYPE_CHECKING:
    from torch import Tensor

EdgeLoss = Literal["in_batch", "bce", "triplet"]
"""Softmax over the candidates of the batch, binary cross-entropy, or the triplet margin."""


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of ``-ln σ(positive)`` plus, over each row's negatives, the mean of ``-ln σ(-negative)``.

    Args:
        positive: [B] scores of edges.
        negative: [B, N] scores of other pairs; -inf is left out.
    """
    from torch.nn.functional import softplus

    # The softplus of a masked -inf is 0: only the count must leave it out.
    count = negative.isfinite().sum(dim=1).clamp_min(1)
    return softplus(-positive).mean() + (softplus(negative).sum(dim=1) / count).mean()


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of ``-ln σ(positive - negative)`` (Rendle et al., UAI 2009); shapes [B], [B, N]."""
    from torch.nn.functional import softplus

    return softplus(negative - positive[:, None]).mean()


def triplet_margin(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean of ``max(0, margin - positive + hardest negative)``; shapes [B], [B, N].

    Schroff, Kalenichenko, Philbin: "FaceNet", CVPR 2015, with the hardest negative of the batch.
    """
    return (margin - positive + negative.amax(dim=1)).clamp_min(0.0).mean()


def sampled_softmax(
    query: Tensor,
    candidate: Tensor,
    ids: Tensor,
    frequency: Tensor,
    *,
    temperature: float,
    extra: Tensor | None = None,
    share: Share | None = None,
) -> Tensor:
    """Softmax over the candidates of the batch, and over further negatives.

    Logits are corrected by frequency (Yi et al.: "Sampling-Bias-Corrected Neural Modeling for Large
    Corpus Item Recommendations", RecSys 2019, section 3.2).

    Args:
        query: [b, d], the share's rows.
        candidate: [B, d], row by row the candidate of an edge.
        ids: int64[B], of the candidates.
        frequency: [B], ln of the share of all edges that each candidate has.
        temperature: divides dot products.
        extra: [b, N] dot products with further negatives, not corrected, or None.
        share: rows whose part of the mean over the batch is wanted; None = all.
    """
    import torch

    position = torch.arange(len(candidate), device=query.device)
    goal = position if share is None else position[share.rows]
    # A candidate enters a batch as often as it has edges: uncorrected, popular ones would lose.
    logit = query @ candidate.T / temperature - frequency[None, :]
    same = ids[goal][:, None] == ids[None, :]
    # Another row with this candidate holds the positive itself, no negative.
    logit = logit.masked_fill(same & (goal[:, None] != position[None, :]), float("-inf"))
    if extra is not None:
        # Lowered by the mean, uncorrected negatives stay on the level of the corrected ones.
        logit = torch.cat((logit, extra / temperature - frequency.mean()), dim=1)
    mean = torch.nn.functional.cross_entropy(logit, goal)
    return mean if share is None else mean * share.part


def edge_loss(
    kind: EdgeLoss,
    query: Tensor,
    candidate: Tensor,
    ids: Tensor,
    frequency: Tensor,
    *,
    temperature: float,
    margin: float,
    extra: Tensor | None,
    share: Share,
) -> Tensor:
    """This process's part of the loss of a batch of edges; arguments as of ``sampled_softmax``.

    Negatives of ``bce`` and ``triplet`` are the candidates of the other rows, and ``extra``.

    Args:
        temperature: divides dot products in ``in_batch`` and ``bce``.
        margin: of ``triplet``, by which an edge shall score above its hardest negative.
    """
    import torch

    if kind == "in_batch":
        return sampled_softmax(
            query, candidate, ids, frequency, temperature=temperature, extra=extra, share=share
        )
    goal = torch.arange(len(candidate), device=query.device)[share.rows]
    score = query @ candidate.T
    positive = score[torch.arange(len(goal), device=query.device), goal]
    same = ids[goal][:, None] == ids[None, :]
    negative = score.masked_fill(same, float("-inf"))
    if extra is not None:
        negative = torch.cat((negative, extra), dim=1)
    if kind == "bce":
        value = binary_cross_entropy(positive / temperature, negative / temperature)
    else:
        value = triplet_margin(positive, negative, margin)
    return value * share.part


def log_frequency(target: IndexArray, targets: int) -> Tensor:
    """float32[M]: ln of each candidate's share of the edges, with one edge added to each."""
    import torch

    # A sampled negative may have no training edge, whose log would be infinite.
    count = np.bincount(target, minlength=targets) + 1.0
    return torch.from_numpy(np.log(count / count.sum()).astype(np.float32))


def negative_scores(query: Tensor, candidate: Tensor, negatives: IndexArray) -> Tensor | None:
    """[B, N] dot products with sampled negatives, or None where there are none.

    Args:
        query: [B, d].
        candidate: vectors of ``negatives``, flat.
        negatives: int32[N] shared by the batch, or int32[B, N], one row for each query.
    """
    import torch

    if not negatives.size:
        return None
    if negatives.ndim == 1:
        return query @ candidate.T
    return torch.einsum("bd,bnd->bn", query, candidate.reshape(*negatives.shape, -1))
