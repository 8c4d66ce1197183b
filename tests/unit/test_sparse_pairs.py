"""Sparse dot products of queries and candidates, against dense ones."""

from __future__ import annotations

import numpy as np

from nextedge.features.sparse_pairs import candidate_dots, neighborhood_dots
from nextedge.graph.csr import build_graph
from nextedge.graph.propagate import SparseRows


def sparse(seed: int, rows: int, columns: int) -> tuple[SparseRows, np.ndarray]:
    random = np.random.default_rng(seed)
    dense = random.random((rows, columns)) * (random.random((rows, columns)) < 0.3)
    place = np.nonzero(dense)
    size = np.bincount(place[0], minlength=rows)
    indptr = np.concatenate(([0], np.cumsum(size)))
    values = dense[place].astype(np.float32)
    return SparseRows(indptr, place[1].astype(np.int32), values, columns), dense


def test_dots_of_candidates_and_of_neighbourhoods() -> None:
    rows, dense = sparse(0, 40, 25)
    random = np.random.default_rng(1)
    source, target = random.integers(0, 40, 200), random.integers(0, 40, 200)
    graph = build_graph(source.astype(np.int32), target.astype(np.int32), 40, 40)
    query = np.array([3, -1, 17, 39], np.int32)
    indptr = np.array([0, 12, 20, 45, 60])
    candidate = random.integers(0, 40, 60).astype(np.int32)
    scale = random.random(40).astype(np.float32)
    one = candidate_dots(rows, query, indptr, candidate)
    mean = neighborhood_dots(graph, rows, scale, query, indptr, candidate)
    for place, q in enumerate(query):
        for row in range(indptr[place], indptr[place + 1]):
            c = candidate[row]
            if q < 0:
                assert one[row] == mean[row] == 0
                continue
            np.testing.assert_allclose(one[row], dense[q] @ dense[c], rtol=1e-4, atol=1e-6)
            own = graph.row(int(q))
            expected = (dense[own] * scale[own, None]).sum(axis=0) @ dense[c] * scale[c]
            np.testing.assert_allclose(mean[row], expected / max(len(own), 1), rtol=1e-4, atol=1e-6)
