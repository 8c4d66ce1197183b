"""A graph without some pairs and with new records: equal to one that is built anew."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from nextedge.graph.csr import Graph, build_graph
from nextedge.storage.arrays import plain
from nextedge.types import FloatArray, IndexArray, IntArray


@dataclass(frozen=True, eq=False)
class EdgeChanges:
    """Edges to add, a row each; rows of one pair merge.

    Attributes:
        source, target: int32[n] positions.
        weight: float32[n].
        time: int64[n] microseconds UTC.
    """

    source: IndexArray
    target: IndexArray
    weight: FloatArray
    time: IntArray

    def __len__(self) -> int:
        return len(self.source)

    def mirrored(self) -> EdgeChanges:
        """Both directions of each."""
        return EdgeChanges(
            np.concatenate((self.source, self.target)),
            np.concatenate((self.target, self.source)),
            np.tile(self.weight, 2),
            np.tile(self.time, 2),
        )

    def reversed(self) -> EdgeChanges:
        """The same edges seen from their targets."""
        return EdgeChanges(self.target, self.source, self.weight, self.time)


def changed(
    graph: Graph, added: EdgeChanges, removed: tuple[IndexArray, IndexArray] | None = None
) -> Graph:
    """The graph without the removed pairs (int32[m] sources and targets), plus the added edges.

    A record of an existing pair adds its weight and widens its times, as in ``build_graph``.

    Cost: one copy of the graph, O(E) at the speed of memory, and O(d) for each changed row.
    """
    none = np.zeros(0, np.int32)
    gone = build_graph(*(removed or (none, none)), len(graph), graph.targets)
    new = build_graph(
        added.source, added.target, len(graph), graph.targets, added.weight, added.time
    )
    changed_rows = np.flatnonzero((new.degree > 0) | (gone.degree > 0))
    size = graph.edges + new.edges  # at most: merged and removed entries leave the end unused
    indptr, indices = np.empty(len(graph) + 1, np.int64), np.empty(size, np.int32)
    weight = np.empty(size, np.float32)
    first, last = np.empty(size, np.int64), np.empty(size, np.int64)
    size = _changed(
        _arrays(graph),
        changed_rows,
        gone.adjacency,
        _arrays(new),
        (indptr, indices, weight, first, last),
    )
    return Graph(indptr, indices[:size], weight[:size], first[:size], last[:size], graph.targets)


def _arrays(graph: Graph) -> tuple[np.ndarray, ...]:
    times = plain(graph.first, np.int64), plain(graph.last, np.int64)
    return *graph.adjacency, plain(graph.weight, np.float32), *times


@numba.njit(cache=True, nogil=True)
def _changed(graph, changed_rows, gone_rows, new_rows, out):  # type: ignore[no-untyped-def]
    """Fill the arrays of ``out``; returns how many entries they have."""
    indptr, indices, weight, first, last = graph
    gone_indptr, gone_indices = gone_rows
    new_indptr, new_indices, new_weight, new_first, new_last = new_rows
    out_indptr, out_indices, out_weight, out_first, out_last = out
    out_indptr[0], size, row = 0, 0, 0
    # Runs of unchanged rows are copied whole, at the speed of memory.
    for number in range(len(changed_rows) + 1):
        stop = changed_rows[number] if number < len(changed_rows) else len(indptr) - 1
        begin, end = indptr[row], indptr[stop]  # rows from ``row`` to ``stop`` stay as they are
        out_indices[size : size + end - begin] = indices[begin:end]
        out_weight[size : size + end - begin] = weight[begin:end]
        out_first[size : size + end - begin] = first[begin:end]
        out_last[size : size + end - begin] = last[begin:end]
        for same in range(row, stop):
            out_indptr[same + 1] = size + indptr[same + 1] - begin
        size += end - begin
        if number == len(changed_rows):
            break
        old, old_end = indptr[stop], indptr[stop + 1]
        new, new_end = new_indptr[stop], new_indptr[stop + 1]
        gone, gone_end = gone_indptr[stop], gone_indptr[stop + 1]
        while old < old_end or new < new_end:
            if old < old_end:
                while gone < gone_end and gone_indices[gone] < indices[old]:
                    gone += 1
                if gone < gone_end and gone_indices[gone] == indices[old]:
                    old += 1
                    continue
            takes_old = old < old_end and (new == new_end or indices[old] <= new_indices[new])
            takes_new = new < new_end and (old == old_end or new_indices[new] <= indices[old])
            if takes_old and takes_new:
                out_indices[size] = indices[old]
                out_weight[size] = weight[old] + new_weight[new]
                out_first[size] = min(first[old], new_first[new])
                out_last[size] = max(last[old], new_last[new])
            elif takes_old:
                out_indices[size], out_weight[size] = indices[old], weight[old]
                out_first[size], out_last[size] = first[old], last[old]
            else:
                out_indices[size], out_weight[size] = new_indices[new], new_weight[new]
                out_first[size], out_last[size] = new_first[new], new_last[new]
            old += takes_old
            new += takes_new
            size += 1
        row = stop + 1
        out_indptr[row] = size
    return size
