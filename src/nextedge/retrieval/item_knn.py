"""Items similar to the query's own, by cosine or co-occurrence with shrinkage.

Deshpande, Karypis: "Item-Based Top-N Recommendation Algorithms", TOIS 22(1), 2004: cosine of
two items' user columns, each user weighted down by how much they engage with; shrinkage pulls
similarities that rest on few users towards zero (Bell, Koren 2007).
"""

from __future__ import annotations

from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.propagate import SparseRows, pair_products, top_products
from nextedge.graph.scope import Scope, graph_rows
from nextedge.graph.similarity import similar_items
from nextedge.retrieval.source import Arrays, Source, sparse_arrays, sparse_from_arrays
from nextedge.types import ENGAGES, Candidates, FloatArray, Requests


class ItemKnnConfig(Settings):
    """Settings of item similarities."""

    neighbors: int = Field(300, ge=1)
    """Similar items that are stored for each item."""
    shrinkage: float = Field(1.0, ge=0)
    """How much similarities that few users support are pulled towards zero."""
    user_power: float = Field(0.5, ge=0)
    """Exponent of 1 / degree, by which users with many edges count less."""
    normalise: bool = True
    """Divide by both items' weights (cosine), not only by the first one's."""


class ItemCooccurrenceConfig(ItemKnnConfig):
    """Settings of co-occurrence: the same with other defaults."""

    shrinkage: float = Field(5.0, ge=0)
    user_power: float = Field(1.0, ge=0)
    normalise: bool = False


class ItemKnn(Source[ItemKnnConfig]):
    """Σ over the query's items of their cosine similarity to the candidate."""

    name = "item_knn"
    relations = (ENGAGES,)
    reason = "because_you_liked"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    @classmethod
    def fit(cls, scope: Scope, config: ItemKnnConfig) -> Arrays:
        return sparse_arrays(similar_items(scope, **config.model_dump()), "similar")

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
    config_class = ItemCooccurrenceConfig
