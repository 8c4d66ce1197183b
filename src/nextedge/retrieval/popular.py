"""Popular candidates: overall, trending, and in the query's segments."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numba
import numpy as np
from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.attributes import Attributes, Category
from nextedge.graph.csr import Graph
from nextedge.graph.decay import faded_degrees, history_span
from nextedge.graph.propagate import SparseRows, keep_best
from nextedge.graph.scope import Scope, rows_of
from nextedge.graph.threads import Scratch, run_lists
from nextedge.retrieval.source import (
    Arrays,
    Config,
    NoConfig,
    ProductSource,
    Source,
    sparse_arrays,
    sparse_from_arrays,
)
from nextedge.schema import ColumnKind
from nextedge.types import Candidates, FloatArray, IndexArray, Requests

if TYPE_CHECKING:
    from scipy import sparse


class SharedOrder(Source[Config]):
    """Candidates in one order, the same for all queries."""

    @classmethod
    @abstractmethod
    def popularity(cls, scope: Scope, config: Config) -> FloatArray:
        """float32[candidates]: the values that order the candidates."""

    @classmethod
    def fit(cls, scope: Scope, config: Config) -> Arrays:
        return _ranked(cls.popularity(scope, config), scope)

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        return first_of_order(
            self.scope, requests, self.arrays["order"], self.arrays["score"], limit
        )

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        score: FloatArray = self.arrays["score"][candidates.candidate]
        return score


class Popular(SharedOrder[NoConfig]):
    """Candidates by the number of their edges."""

    name = "popular"
    reason = "popular"

    @classmethod
    def popularity(cls, scope: Scope, config: NoConfig) -> FloatArray:
        return scope.candidate_degree.astype(np.float32)


class TrendingConfig(Settings):
    """Settings of the trending source."""

    half_life_share: float = Field(0.03, gt=0)
    """Half-life of an edge, as a share of the history's span."""


class Trending(SharedOrder[TrendingConfig]):
    """Candidates by their edges, each weighing 2^(-age / half-life)."""

    name = "trending"
    reason = "trending"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.timed and scope.graph.edges > 0

    @classmethod
    def popularity(cls, scope: Scope, config: TrendingConfig) -> FloatArray:
        half_life = history_span(scope) * config.half_life_share
        return decayed_degree(scope, half_life)


class SegmentConfig(Settings):
    """Settings of the segment source."""

    per_value: int = Field(300, ge=1)
    """Candidates to store for each value."""


class Segment(ProductSource[SegmentConfig]):
    """Candidates popular among users who share the query's attribute values.

    The score is the sum, over the query's values (a city, an industry, an age group), of the share
    of the value's members' edges that go to the candidate.
    """

    name = "segment"
    reason = "popular_in_segment"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return bool(_segments(scope.query_attributes)) and scope.graph.edges > 0

    @classmethod
    def fit(cls, scope: Scope, config: SegmentConfig) -> Arrays:
        members = value_members(scope.query_attributes, _segments(scope.query_attributes))
        popular = _most_shared(members, scope.graph, config.per_value)
        return {
            **sparse_arrays(popular, "popular"),
            **sparse_arrays(sparse_rows(members), "values"),
        }

    def rows(self, requests: Requests) -> SparseRows:
        return rows_of(sparse_from_arrays(self.arrays, "values"), requests.query)

    def evidence(self, query: int, candidate: int) -> tuple[str, dict[str, object]] | None:
        """Return the query's value in whose segment the candidate is most popular."""
        if query < 0:
            return None
        values = sparse_from_arrays(self.arrays, "values")
        popular = sparse_from_arrays(self.arrays, "popular")
        best, share = -1, 0.0
        for value in values.indices[values.indptr[query] : values.indptr[query + 1]]:
            row = slice(int(popular.indptr[value]), int(popular.indptr[value + 1]))
            shares = popular.values[row][popular.indices[row] == candidate]
            if len(shares) and float(shares[0]) > share:
                best, share = int(value), float(shares[0])
        for name in _segments(self.scope.query_attributes):
            column = self.scope.query_attributes.columns[name]
            assert isinstance(column, Category)
            # An empty column still takes one place in value_members.
            size = max(len(column.values), 1)
            if 0 <= best < size:
                value = column.values[best].as_py()
                text = f"popular among people of the same {name.replace('_', ' ')}: {value}"
                return text, {"column": name, "value": value}
            best -= size
        return None

    @property
    def matrix(self) -> SparseRows:
        return sparse_from_arrays(self.arrays, "popular")


def first_of_order(
    scope: Scope, requests: Requests, order: IndexArray, score: FloatArray, limit: int
) -> Candidates:
    """Return the first candidates of an order that all queries share, without excluded ones."""
    width, seen = min(limit, len(order)), (Scratch(len(score), np.bool_),)
    excluded = scope.excluded(requests)
    indptr, candidate, _ = run_lists(_first, len(requests), width, order, excluded, scratch=seen)
    return Candidates(indptr, candidate, {"score": score[candidate]})


@numba.njit(cache=True, nogil=True)
def _first(block, blocks, order, exclude, lists, skip):  # type: ignore[no-untyped-def]
    indptr, excluded = exclude
    size, target, _ = lists
    for q in range(block, len(size), blocks):
        for entry in range(indptr[q], indptr[q + 1]):
            skip[excluded[entry]] = True
        count = 0
        for candidate in order:
            if count == target.shape[1]:
                break
            if not skip[candidate]:
                target[q, count] = candidate
                count += 1
        # Reset entry by entry: the array is as long as all candidates.
        for entry in range(indptr[q], indptr[q + 1]):
            skip[excluded[entry]] = False
        size[q] = count


def decayed_degree(scope: Scope, half_life: float) -> FloatArray:
    """float32[candidates]: edges of each candidate, counted 2^(-age / half_life)."""
    _, total = faded_degrees(scope.graph, scope.snapshot.as_of, half_life)
    return total.astype(np.float32)


def _ranked(score: FloatArray, scope: Scope) -> Arrays:
    # Ties by position, so that two builds of the same data agree.
    order = np.lexsort((np.arange(len(score)), -score)).astype(np.int32)
    return {"score": score, "order": order[scope.recommendable[order]]}


def _segments(attributes: Attributes) -> list[str]:
    """Category columns whose values have five users or more on average."""
    names = []
    for name in attributes.of_kind(ColumnKind.CATEGORY):
        column = attributes.columns[name]
        assert isinstance(column, Category)
        if len(column.values) * 5 <= attributes.rows:
            names.append(name)
    return names


def value_members(attributes: Attributes, names: list[str]) -> sparse.csr_matrix:
    """Users × values of the named category and tag columns, ones where a user has a value."""
    from scipy import sparse

    blocks = []
    for name in names:
        sets = attributes.columns[name].as_sets()  # type: ignore[union-attr]
        shape = (attributes.rows, max(sets.columns, 1))
        blocks.append(sparse.csr_matrix((sets.values, sets.indices, sets.indptr), shape=shape))
    return sparse.hstack(blocks, format="csr")


def sparse_rows(matrix: sparse.csr_matrix) -> SparseRows:
    return SparseRows(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32),
        matrix.data.astype(np.float32),
        matrix.shape[1],
    )


def _most_shared(members: sparse.csr_matrix, graph: Graph, n: int) -> SparseRows:
    """For every value the n candidates with the largest share of its members' edges, best first.

    Ties go to the smaller candidate.
    """
    of_value = members.T.tocsr()
    values = of_value.indptr, of_value.indices
    scratch = (
        Scratch(graph.targets, np.float32),
        Scratch(graph.targets + 1, np.int32, zeroed=False),
    )
    edges = graph.indptr, graph.indices
    lists = run_lists(_share, of_value.shape[0], n, values, edges, n, scratch=scratch)
    return SparseRows(*lists, graph.targets)


@numba.njit(cache=True, nogil=True)
def _share(block, blocks, values, graph, n, lists, total, reached):  # type: ignore[no-untyped-def]
    (v_indptr, v_indices), (indptr, indices) = values, graph
    size, target, share = lists
    for value in range(block, len(size), blocks):
        count, edges = 0, 0
        for member in v_indices[v_indptr[value] : v_indptr[value + 1]]:
            edges += indptr[member + 1] - indptr[member]
            for other in indices[indptr[member] : indptr[member + 1]]:
                if total[other] == 0.0:
                    reached[count] = other
                    count += 1
                total[other] += np.float32(1.0)
        # Ten more edges, so that a value with few edges has small shares.
        scale = np.float32(1.0) / (np.float32(max(edges, 1)) + np.float32(10.0))
        for position in range(count):
            total[reached[position]] *= scale
        size[value] = keep_best(total, reached, count, n, target[value], share[value])
        for position in range(count):
            total[reached[position]] = 0.0
