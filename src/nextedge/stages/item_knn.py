"""Items similar to the query's own, by cosine or co-occurrence with shrinkage.

Deshpande, Karypis: "Item-Based Top-N Recommendation Algorithms", TOIS 22(1), 2004: cosine of
two items' user columns, each user weighted down by how much they engage with; shrinkage pulls
similarities that rest on few users towards zero (Bell, Koren 2007).
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.propagate import SparseRows, keep_best, pair_products, top_products
from nextedge.graph.threads import run_blocks
from nextedge.stages.source import (
    Arrays,
    Options,
    Scope,
    Source,
    graph_rows,
    sparse_arrays,
    sparse_from_arrays,
)
from nextedge.types import ENGAGES, Candidates, FloatArray, Requests


class ItemKnn(Source):
    """Σ over the query's items of their cosine similarity to the candidate."""

    name = "item_knn"
    relations = (ENGAGES,)
    reason = "because_you_liked"
    defaults = {"neighbours": 300, "shrinkage": 1.0, "user_power": 0.5, "normalise": True}

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    @classmethod
    def fit(cls, scope: Scope, options: Options) -> Arrays:
        settings = {**cls.defaults, **options}
        similar = similar_items(
            scope,
            neighbours=int(settings["neighbours"]),
            shrinkage=float(settings["shrinkage"]),
            user_power=float(settings["user_power"]),
            normalise=bool(settings["normalise"]),
        )
        return sparse_arrays(similar, "similar")

    @property
    def similar(self) -> SparseRows:
        """Top similar items of each item, ids ascending, with similarities."""
        return sparse_from_arrays(self.arrays, "similar")

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        rows = graph_rows(self.scope.graph, requests.query)
        return top_products(rows, self.similar, limit, self.scope.excluded(requests))

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        rows = graph_rows(self.scope.graph, requests.query)
        return pair_products(rows, self.similar, candidates.indptr, candidates.candidate)


class ItemCooccurrence(ItemKnn):
    """The same over raw co-occurrence with shrinkage: favours what many people share."""

    name = "item_cooccurrence"
    defaults = {"neighbours": 300, "shrinkage": 5.0, "user_power": 1.0, "normalise": False}


def similar_items(
    scope: Scope, *, neighbours: int, shrinkage: float, user_power: float, normalise: bool
) -> SparseRows:
    """For each item its most similar items.

    ``sim(i, j) = Σ_u deg(u)^-user_power / (sqrt(n_i · n_j) + shrinkage)`` when normalised,
    where n counts the same weights; else divided by ``n_i + shrinkage`` (the share of i's
    audience that also has j).
    """
    engaged, engaged_by = scope.snapshot.engagements, scope.snapshot.engaged_by
    user_weight = np.maximum(engaged.degree, 1).astype(np.float64) ** -user_power
    items = len(engaged_by)
    width = max(1, min(neighbours, items))
    size = np.zeros(items, np.int64)
    target = np.empty((items, width), np.int32)
    score = np.empty((items, width), np.float32)
    by_item = np.repeat(np.arange(items), engaged_by.degree)
    norm = np.bincount(by_item, user_weight[engaged_by.indices], minlength=items)
    run_blocks(
        _similar_items, items,
        engaged_by.indptr, engaged_by.indices, engaged.indptr, engaged.indices,
        user_weight.astype(np.float32), norm.astype(np.float32), np.float32(shrinkage), normalise,
        size, target, score,
    )  # fmt: skip
    filled = np.arange(target.shape[1])[None, :] < size[:, None]
    indptr = np.concatenate(([0], np.cumsum(size)))
    return SparseRows(indptr, target[filled], score[filled], len(engaged_by))


@numba.njit(cache=True, nogil=True)
def _similar_items(  # type: ignore[no-untyped-def]
    block, blocks, by_indptr, by_indices, of_indptr, of_indices, user_weight, norm, shrinkage,
    normalise, size, target, score,
):  # fmt: skip
    items = len(by_indptr) - 1
    total = np.zeros(items, np.float32)
    touched = np.empty(items, np.int32)
    for item in range(block, items, blocks):
        count = 0
        for place in range(by_indptr[item], by_indptr[item + 1]):
            user = by_indices[place]
            weight = user_weight[user]
            for entry in range(of_indptr[user], of_indptr[user + 1]):
                other = of_indices[entry]
                if total[other] == 0.0:
                    touched[count] = other
                    count += 1
                total[other] += weight
        total[item] = 0.0
        for place in range(count):
            other = touched[place]
            scale = np.sqrt(norm[item] * norm[other]) if normalise else norm[item]
            total[other] /= scale + shrinkage
        size[item] = keep_best(total, touched, count, target.shape[1], target[item], score[item])
        for place in range(count):
            total[touched[place]] = 0.0
