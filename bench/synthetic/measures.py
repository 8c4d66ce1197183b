"""Measures of a network that the synthetic tenant is compared by. N nodes, E edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy import sparse

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Edges:
    """Undirected pairs, each once, in the order of time; ``time`` is in days, or None."""

    name: str
    nodes: int
    one: Array
    other: Array
    time: Array | None

    def graph(self, first: int = 0, last: int | None = None) -> sparse.csr_array:
        """float32[N, N] adjacency of a run of edges, neighbours ascending."""
        one, other = self.one[first:last], self.other[first:last]
        ends = (np.concatenate((one, other)), np.concatenate((other, one)))
        values = np.ones(2 * len(one), np.float32)
        graph = sparse.csr_array((values, ends), shape=(self.nodes, self.nodes))
        graph.sort_indices()
        return graph


def load_edges(path: str, name: str, source: str = "src", target: str = "dst") -> Edges:
    """Read pairs from Parquet; the first edge of a pair counts, loops do not."""
    table = pq.read_table(path)
    one, other = (table.column(column).to_numpy() for column in (source, target))
    known, codes = np.unique(np.concatenate((one, other)), return_inverse=True)
    one, other = codes[: len(one)], codes[len(one) :]
    time = None
    order = np.arange(len(one))
    if "timestamp" in table.column_names:
        time = table.column("timestamp").to_numpy()
        if time.dtype.kind == "M":
            time = time.astype("datetime64[us]").astype(np.int64) / 86_400e6
        else:
            time = time / 86_400.0
        order = np.argsort(time, kind="stable")
    low, high = np.minimum(one, other)[order], np.maximum(one, other)[order]
    _, first = np.unique(low.astype(np.int64) * len(known) + high, return_index=True)
    kept = np.sort(first[low[first] != high[first]])
    return Edges(
        name, len(known), low[kept], high[kept], None if time is None else time[order][kept]
    )


def local_clustering(graph: sparse.csr_array) -> Array:
    """float64[N]: closed share of each node's wedges (Watts and Strogatz 1998); NaN below 2."""
    triangles = _triangles(graph.indptr.astype(np.int64), graph.indices)
    degree = np.diff(graph.indptr).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        closed: Array = np.where(degree > 1, triangles / (degree * (degree - 1) / 2), np.nan)
    return closed


@numba.njit(cache=True, parallel=True)
def _triangles(indptr, indices):  # type: ignore[no-untyped-def]
    out = np.zeros(len(indptr) - 1)
    for node in numba.prange(len(indptr) - 1):
        total = 0
        for place in range(indptr[node], indptr[node + 1]):
            friend = indices[place]
            left, right = indptr[node], indptr[friend]
            while left < indptr[node + 1] and right < indptr[friend + 1]:
                if indices[left] == indices[right]:
                    total += 1
                left, right = (
                    left + (indices[left] <= indices[right]),
                    right + (indices[right] <= indices[left]),
                )
        out[node] = total / 2
    return out


def common_at_arrival(edges: Edges) -> Array:
    """int64[E]: common neighbours of each pair just before its edge came."""
    number = np.arange(1, len(edges.one) + 1)
    ends = (np.concatenate((edges.one, edges.other)), np.concatenate((edges.other, edges.one)))
    graph = sparse.csr_array((np.tile(number, 2), ends), shape=(edges.nodes, edges.nodes))
    graph.sort_indices()
    rows = (graph.indptr.astype(np.int64), graph.indices, graph.data)
    common: Array = _common(*rows, edges.one, edges.other)
    return common


@numba.njit(cache=True, parallel=True)
def _common(indptr, indices, number, one, other):  # type: ignore[no-untyped-def]
    out = np.zeros(len(one), np.int64)
    for edge in numba.prange(len(one)):
        left, right = indptr[one[edge]], indptr[other[edge]]
        while left < indptr[one[edge] + 1] and right < indptr[other[edge] + 1]:
            same = indices[left] == indices[right]
            if same and number[left] <= edge and number[right] <= edge:
                out[edge] += 1
            left, right = (
                left + (indices[left] <= indices[right]),
                right + (indices[right] <= indices[left]),
            )
    return out


def ages(edges: Edges) -> Array:
    """float64[2 E]: days from a node's first edge to each of its edges after the first."""
    assert edges.time is not None
    ends = np.concatenate((edges.one, edges.other))
    time = np.concatenate((edges.time, edges.time))
    born = np.full(edges.nodes, np.inf)
    np.minimum.at(born, ends, time)
    age = time - born[ends]
    later: Array = age[age > 0]
    return later


def rewired(edges: Edges, seed: int = 0) -> Edges:
    """The same degrees, ends matched by lot (configuration model), loops and repeats dropped."""
    ends = np.random.default_rng(seed).permutation(np.concatenate((edges.one, edges.other)))
    low, high = np.minimum(*ends.reshape(2, -1)), np.maximum(*ends.reshape(2, -1))
    keys = np.unique((low.astype(np.int64) * edges.nodes + high)[low != high])
    return Edges(f"{edges.name}, rewired", edges.nodes, *np.divmod(keys, edges.nodes), None)


def held_out(
    edges: Edges, share: float = 0.1, queries: int = 2_000, k: int = 20
) -> dict[str, float]:
    """How the latest edges relate to the graph before them, and what simple rankings find.

    Recall@k over users known before with a later edge to a user known before; all
    non-neighbours are ranked, ties by position. ``popularity`` ranks by degree.
    """
    cut = round(len(edges.one) * (1 - share))
    graph = edges.graph(0, cut)
    one, other = edges.one[cut:], edges.other[cut:]
    degree = np.diff(graph.indptr)
    common = np.asarray(graph[one].multiply(graph[other]).sum(axis=1)).ravel()
    known = (degree[one] > 0) & (degree[other] > 0)
    out = {
        "new_edges": len(one),
        "share_0_common": float((common == 0).mean()),
        "share_1_common": float((common == 1).mean()),
        "share_2_common_or_more": float((common >= 2).mean()),
        "share_of_a_user_without_edges": float((~known).mean()),
        "share_0_common_among_known": float((common[known] == 0).mean()),
    }
    rarity = np.where(degree > 1, 1.0 / np.log(np.maximum(degree, 2)), 0.0)
    asked, wanted = (
        np.concatenate(pair) for pair in ((one[known], other[known]), (other[known], one[known]))
    )
    users = np.unique(asked)
    users = np.random.default_rng(0).permutation(users)[:queries]
    popular = degree.astype(float)
    recall: dict[str, list[float]] = {"adamic_adar": [], "common_neighbors": [], "popularity": []}
    weighted = (graph @ sparse.diags_array(rarity)).tocsr()
    for user in users:
        target = wanted[asked == user]
        row = graph.indices[graph.indptr[user] : graph.indptr[user + 1]]
        for name, score in (
            ("adamic_adar", (weighted[[user]] @ graph).toarray()[0]),
            ("common_neighbors", (graph[[user]] @ graph).toarray()[0]),
            ("popularity", popular.copy()),
        ):
            score[row] = score[user] = -1.0
            best = np.argsort(-score, kind="stable")[:k]
            recall[name].append(np.isin(target, best).sum() / min(len(target), k))
    return out | {f"{name}_recall@{k}": float(np.mean(values)) for name, values in recall.items()}
