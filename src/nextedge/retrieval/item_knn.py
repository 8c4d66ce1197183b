"""Items similar to the items of the query, by cosine or co-occurrence with shrinkage.

Deshpande, Karypis: "Item-Based Top-N Recommendation Algorithms", TOIS 22(1), 2004: cosine of
two items' user columns, each user weighted down by how much they engage with; shrinkage pulls
similarities that rest on few users towards zero (Bell, Koren 2007).
"""

from __future__ import annotations

from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.propagate import SparseRows
from nextedge.graph.scope import Scope, graph_rows
from nextedge.graph.similarity import similar_items
from nextedge.retrieval.source import Arrays, ProductSource, sparse_arrays, sparse_from_arrays
from nextedge.types import ENGAGES, Requests


class ItemKnnConfig(Settings):
    """Settings of item similarities."""

    neighbors: int = Field(300, ge=1)
    """Similar items to store for each item."""
    shrinkage: float = Field(1.0, ge=0)
    """How far to pull similarities that rest on few users towards zero."""
    user_power: float = Field(0.5, ge=0)
    """Exponent of 1 / degree, by which users with many edges count less."""
    normalise: bool = True
    """Divide by the weights of both items (cosine), not only by that of the first."""


class ItemCooccurrenceConfig(ItemKnnConfig):
    """The settings of item similarities, with the defaults of co-occurrence."""

    shrinkage: float = Field(5.0, ge=0)
    user_power: float = Field(1.0, ge=0)
    normalise: bool = False


class ItemKnn(ProductSource[ItemKnnConfig]):
    """Items by the sum of their cosine similarities to the items of the query."""

    name = "item_knn"
    relations = (ENGAGES,)
    reason = "because_you_liked"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    @classmethod
    def fit(cls, scope: Scope, config: ItemKnnConfig) -> Arrays:
        return sparse_arrays(similar_items(scope, **config.model_dump()), "similar")

    def rows(self, requests: Requests) -> SparseRows:
        return graph_rows(self.scope.graph, requests.query)

    @property
    def matrix(self) -> SparseRows:
        """The top similar items of each item, ids ascending, with similarities."""
        return sparse_from_arrays(self.arrays, "similar")


class ItemCooccurrence(ItemKnn):
    """Items by raw co-occurrence with shrinkage, which favours items with many users."""

    name = "item_cooccurrence"
    config_class = ItemCooccurrenceConfig
