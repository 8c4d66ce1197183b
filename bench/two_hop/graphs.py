"""Seeded random graphs with a power-law degree distribution, for measurements."""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt


def expected_degrees(
    nodes: int, mean: float, exponent: float, largest: float
) -> npt.NDArray[np.float64]:
    """float64[N] quantiles of a power law cut at ``largest``, scaled to the given mean."""
    quantile = (np.arange(nodes) + 0.5) / nodes
    low, high = 0.0, mean
    for _ in range(60):
        smallest = (low + high) / 2
        tail = (smallest / largest) ** (exponent - 1)
        degree = smallest * (1 - quantile * (1 - tail)) ** (-1 / (exponent - 1))
        low, high = (smallest, high) if degree.mean() < mean else (low, smallest)
    return degree


def chung_lu(
    nodes: int, edges: int, *, exponent: float = 2.5, seed: int = 1, largest: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Symmetric CSR of a Chung-Lu graph with exactly ``edges`` undirected edges.

    Ends of edges are drawn in proportion to a power-law weight; loops and repeats are drawn
    again. Node ids are shuffled, so that order gives no locality away. ``largest`` cuts the
    expected degree, by default at √(mean · N), where the drawing begins to saturate.

    Chung, Lu: "The average distances in random graphs with given expected degrees", 2002.
    """
    random = np.random.default_rng(seed)
    mean = 2 * edges / nodes
    weight = expected_degrees(nodes, mean, exponent, largest or np.sqrt(mean * nodes))
    random.shuffle(weight)
    cumulative = np.cumsum(weight) / weight.sum()
    keys = np.zeros(0, np.int64)
    while len(keys) < edges:
        count = int((edges - len(keys)) * 1.02) + 1000
        ends = np.searchsorted(cumulative, random.random((2, count)))
        ends = ends[:, ends[0] != ends[1]]
        keys = np.unique(np.concatenate((keys, ends.min(axis=0) * nodes + ends.max(axis=0))))
    keys = np.sort(random.permutation(keys)[:edges])
    return _mirror((keys // nodes).astype(np.int32), (keys % nodes).astype(np.int32), nodes)


def write_chung_lu(directory: Path, nodes: int, edges: int, exponent: float, seed: int) -> None:
    """Draw the graph in a process of its own, so that its memory is not counted."""
    indptr, indices = chung_lu(nodes, edges, exponent=exponent, seed=seed)
    np.save(directory / "indptr.npy", indptr)
    np.save(directory / "indices.npy", indices)


@numba.njit(cache=True)
def _mirror(smaller, larger, nodes):  # type: ignore[no-untyped-def]
    """Rows ascending from edges sorted by (smaller, larger): first all below, then all above."""
    indptr = np.zeros(nodes + 2, np.int64)
    for edge in range(len(smaller)):
        indptr[smaller[edge] + 2] += 1
        indptr[larger[edge] + 2] += 1
    for node in range(1, nodes + 2):
        indptr[node] += indptr[node - 1]
    indices = np.empty(2 * len(smaller), np.int32)
    for edge in range(len(smaller)):
        indices[indptr[larger[edge] + 1]] = smaller[edge]
        indptr[larger[edge] + 1] += 1
    for edge in range(len(smaller)):
        indices[indptr[smaller[edge] + 1]] = larger[edge]
        indptr[smaller[edge] + 1] += 1
    return indptr[: nodes + 1].copy(), indices
