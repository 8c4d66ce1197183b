"""Items similar to the query's own, by cosine or co-occurrence with shrinkage.

Deshpande, Karypis: "Item-Based Top-N Recommendation Algorithms", TOIS 22(1), 2004: cosine of
two items' user columns, each user weighted down by how much they engage with; shrinkage pulls
similarities that rest on few users towards zero (Bell, Koren 2007).
"""

from __future__ import annotations

from nextedge.graph.propagate import SparseRows, pair_products, top_products
from nextedge.graph.scope import Scope, graph_rows
from nextedge.graph.similarity import similar_items
from nextedge.retrieval.source import Arrays, Options, Source, sparse_arrays, sparse_from_arrays
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
