"""Candidates that share attribute values with the query, weighted by homophily in the graph.

The weight of a column is its homophily lift: how much a shared value raises the odds of an edge.
Rare values weigh more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.attributes import Attributes
from nextedge.graph.propagate import SparseRows
from nextedge.graph.scope import Scope, rows_of
from nextedge.retrieval.popular import sparse_rows, value_members
from nextedge.retrieval.source import Arrays, ProductSource, sparse_arrays, sparse_from_arrays
from nextedge.schema import ColumnKind
from nextedge.types import CONNECTS, Requests

if TYPE_CHECKING:
    from scipy import sparse


class ProfileConfig(Settings):
    """Settings of the profile source."""

    member_cap: int = Field(20_000, ge=1)
    """Values of more users than this do not count."""
    sample_edges: int = Field(200_000, ge=1)
    """Sampled edges that measure the weight of a column."""


class Profile(ProductSource[ProfileConfig]):
    """People with the same school, company or skills, also for queries without an edge."""

    name = "profile"
    relations = (CONNECTS,)
    reason = "similar_profile"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return bool(_columns(scope.query_attributes)) and scope.graph.edges > 0

    @classmethod
    def fit(cls, scope: Scope, config: ProfileConfig) -> Arrays:
        from scipy import sparse

        weighted, members = [], []
        for name in _columns(scope.query_attributes):
            sets = value_members(scope.query_attributes, [name])
            lift = homophily(scope, sets, config.sample_edges)
            size = np.asarray(sets.sum(axis=0)).ravel()
            rarity = np.log1p(sets.shape[0] / np.maximum(size, 1.0))  # a value may have no user
            # Such a value says little, and its members would slow every product.
            rarity[size > config.member_cap] = 0.0
            weighted.append(sets @ sparse.diags(lift * rarity))
            members.append(sets)
        rows = _rows(sparse.hstack(weighted, format="csr"))
        of_value = sparse.hstack(members, format="csr").T.tocsr()
        return {**sparse_arrays(rows, "values"), **sparse_arrays(_rows(of_value), "members")}

    def rows(self, requests: Requests) -> SparseRows:
        return rows_of(sparse_from_arrays(self.arrays, "values"), requests.query)

    @property
    def matrix(self) -> SparseRows:
        return sparse_from_arrays(self.arrays, "members")


def _columns(attributes: Attributes) -> list[str]:
    return attributes.of_kind(ColumnKind.CATEGORY, ColumnKind.TAGS)


def homophily(scope: Scope, sets: sparse.csr_matrix, sample: int) -> float:
    """Log odds ratio of sharing a value of the column, edges against random pairs, at least 0."""
    random = np.random.default_rng(0)  # the same weights in every build of the same data
    graph = scope.graph
    edge = random.integers(0, graph.edges, min(sample, graph.edges))
    # Right, so that nodes without edges, whose bounds are equal, are passed over.
    source = np.searchsorted(graph.indptr, edge, side="right") - 1
    target = np.asarray(graph.indices[edge])
    # Shuffled targets keep every degree, so the odds differ by the edges alone.
    shuffled = random.permutation(target)
    joined = (np.asarray(sets[source].multiply(sets[target]).sum(axis=1)) > 0).mean()
    apart = (np.asarray(sets[source].multiply(sets[shuffled]).sum(axis=1)) > 0).mean()
    # A share of 0 or 1 would make the odds infinite.
    share = [min(max(float(p), 1e-4), 1 - 1e-4) for p in (joined, apart)]
    return max(float(np.log(share[0] / (1 - share[0]) * (1 - share[1]) / share[1])), 0.0)


def _rows(matrix: sparse.csr_matrix) -> SparseRows:
    matrix.sort_indices()
    # Capped values and columns without homophily would only lengthen the products.
    matrix.eliminate_zeros()
    return sparse_rows(matrix)
