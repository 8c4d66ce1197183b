"""Sampled neighborhoods of a query and of its candidates: the input of the re-ranker.

All numbers mean the same in every graph (degrees, ages, cosines, whether an edge exists), so that
the weights of one window hold in the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.graph.scope import Scope, cached_per_release
from nextedge.models.rankers.cross_attention import RELATION, TOKEN, Neighborhoods
from nextedge.models.spectral import decompose
from nextedge.types import MICROSECONDS_PER_DAY, FloatArray, IndexArray

DIMENSIONS = 32
_HASH = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Vectors:
    """float32[U, d] of queries and float32[N, d] of candidates, rows of length 1 (or 0)."""

    query: FloatArray
    candidate: FloatArray


@cached_per_release
def neighborhood_vectors(scope: Scope) -> Vectors:
    """The leading singular vectors of a scope's graph."""
    left, value, right = decompose(scope.graph, DIMENSIONS)
    return Vectors(_unit(left * np.sqrt(value)), _unit(right * np.sqrt(value)))


def sampled(
    graph: Graph, node: int, neighbors: int, *, timed: bool
) -> tuple[IndexArray, np.ndarray]:
    """A node's latest neighbors (int32), or a hashed sample, and their indices in the graph."""
    if node < 0:
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    start, stop = int(graph.indptr[node]), int(graph.indptr[node + 1])
    edges = np.arange(start, stop)
    nodes = graph.indices[start:stop]
    if len(nodes) > neighbors:
        if timed:
            order = np.argsort(-graph.last[start:stop], kind="stable")
        else:  # by hash, so that every query samples the same neighbors of a node
            order = np.argsort(nodes.astype(np.uint64) * _HASH, kind="stable")
        sample = np.sort(order[:neighbors])
        edges, nodes = edges[sample], nodes[sample]
    return np.asarray(nodes, np.int32), edges


def neighborhoods(
    scope: Scope, query: int, candidates: IndexArray, now: int, neighbors: int
) -> Neighborhoods:
    """The neighborhoods of one query (a position, or below 0 if unknown) and of its candidates.

    Args:
        now: microseconds UTC of the request.
        neighbors: T, most neighbors of each.

    Cost: O(P · T² · (d + ln degree)).
    """
    graph, vectors = scope.graph, neighborhood_vectors(scope)
    people = scope.relation.self_typed
    behind = scope.reverse_graph
    left, left_edges = sampled(graph, query, neighbors, timed=scope.timed)
    left_edge = _edge_numbers(graph, left_edges, now, timed=scope.timed)
    left_degree = np.log1p(scope.candidate_degree[left]).astype(np.float32)
    pairs = len(candidates)
    right = np.full((pairs, neighbors), -1, np.int32)
    right_edge = np.zeros((pairs, neighbors, 2), np.float32)
    for row, candidate in enumerate(candidates):
        nodes, edges = sampled(behind, int(candidate), neighbors, timed=scope.timed)
        right[row, : len(nodes)] = nodes
        right_edge[row, : len(nodes)] = _edge_numbers(behind, edges, now, timed=scope.timed)
    # -1 pads a short neighborhood; the mask hides the degree that is read for it.
    right_degree = np.log1p(graph.degree[np.maximum(right, 0)]).astype(np.float32)
    of_query = vectors.query[query] if query >= 0 else np.zeros(vectors.query.shape[1], np.float32)
    left_side = left, left_edge, left_degree
    right_side = np.asarray(candidates, np.int32), right, right_edge, right_degree
    spectral = vectors.query, vectors.candidate, of_query
    adjacency = graph.indptr, graph.indices
    return Neighborhoods(*_fill(adjacency, people, query, left_side, right_side, spectral))


def _edge_numbers(graph: Graph, edges: np.ndarray, now: int, *, timed: bool) -> FloatArray:
    """float32[n, 2]: ln(1 + days since the edge's last record), ln(1 + weight)."""
    days = np.zeros(len(edges))
    if timed:
        # An edge may be newer than the request, and a negative age has no logarithm.
        days = np.maximum(now - graph.last[edges], 0) / MICROSECONDS_PER_DAY
    return np.stack((np.log1p(days), np.log1p(graph.weight[edges])), axis=1).astype(np.float32)


def _unit(rows: FloatArray) -> FloatArray:
    length = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    # A node without edges has a row of zeros: divided by infinity it stays so.
    return (rows / np.where(length > 1e-12, length, np.inf)).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _has(indptr, indices, row, target):  # type: ignore[no-untyped-def]
    if row < 0:
        return False
    low, high = indptr[row], indptr[row + 1]
    position = low + np.searchsorted(indices[low:high], target)
    return position < high and indices[position] == target


@numba.njit(cache=True, nogil=True)
def _cosine(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for column in range(len(a)):
        total += a[column] * b[column]
    return total


@numba.njit(cache=True, nogil=True)
def _fill(adjacency, people, query, left_side, right_side, spectral):  # type: ignore[no-untyped-def]
    indptr, indices = adjacency
    left, left_edge, left_degree = left_side
    candidates, right, right_edge, right_degree = right_side
    query_vector, candidate_vector, of_query = spectral
    neighbors, token_size, relation_size = right.shape[1], TOKEN, RELATION
    pairs = len(candidates)
    query_tokens = np.zeros((pairs, neighbors, token_size), np.float32)
    candidate_tokens = np.zeros((pairs, neighbors, token_size), np.float32)
    query_mask = np.zeros((pairs, neighbors), np.bool_)
    candidate_mask = np.zeros((pairs, neighbors), np.bool_)
    relation = np.zeros((pairs, neighbors, neighbors, relation_size), np.float32)
    for pair in range(pairs):
        candidate = candidates[pair]
        for position in range(len(left)):
            node = left[position]
            token = query_tokens[pair, position]
            query_mask[pair, position] = True
            token[0] = left_degree[position]
            token[1], token[2] = left_edge[position, 0], left_edge[position, 1]
            token[3] = _cosine(of_query, candidate_vector[node])
            token[4] = _cosine(candidate_vector[node], candidate_vector[candidate])
            token[5] = np.float32(people and _has(indptr, indices, node, candidate))
        for position in range(neighbors):
            node = right[pair, position]
            if node < 0:
                break
            token = candidate_tokens[pair, position]
            candidate_mask[pair, position] = True
            token[0] = right_degree[pair, position]
            token[1], token[2] = right_edge[pair, position, 0], right_edge[pair, position, 1]
            token[3] = _cosine(query_vector[node], candidate_vector[candidate])
            token[4] = _cosine(query_vector[node], of_query)
            token[5] = np.float32(people and _has(indptr, indices, query, node))
            for other in range(len(left)):
                both = relation[pair, other, position]
                both[0] = _cosine(query_vector[node], candidate_vector[left[other]])
                both[1] = np.float32(_has(indptr, indices, node, left[other]))
                both[2] = np.float32(people and left[other] == node)
    return query_tokens, candidate_tokens, query_mask, candidate_mask, relation
