"""Storage of the graph of a training: every process all of it, or each a part of the nodes.

With a part each (DistDGL: Zheng et al., "DistDGL: Distributed Graph Neural Network Training for
Billion-Scale Graphs", IA³ 2020, section 3), a process computes those nodes of a batch whose
adjacency rows it stores, and asks other processes for the inputs of sampled neighbours. The draw
of neighbours depends on seed and node alone, so both ways sample the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextedge.graph.csr import Graph
from nextedge.graph.sampler import sample_neighbors
from nextedge.models.distributed.collectives import Ranks, Share
from nextedge.models.neural.node_inputs import Inputs, Messages
from nextedge.models.pytorch import as_index
from nextedge.types import FloatArray, IndexArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class NodeRows:
    """Inputs of the nodes that a process needs in a batch.

    Attributes:
        x: float32[n, F].
        share: their positions among the nodes that any process needs.
        weight: float32[n], 1 / (processes that need the node), or None where one does.
    """

    x: Tensor
    share: Share
    weight: Tensor | None


class Replicated:
    """Every process stores the whole graph and computes an equal share of the nodes of a batch."""

    def __init__(self, messages: list[Messages], means: Inputs, ranks: Ranks) -> None:
        import torch

        self.messages, self.ranks = messages, ranks
        self.x = {kind: torch.from_numpy(np.asarray(x)) for kind, x in means.items()}

    def share(self, kind: str, nodes: IndexArray) -> Share:
        """The share of the distinct nodes of a batch, ascending, that this process computes."""
        return self.ranks.share(len(nodes))

    def neighbors(
        self, message: int, nodes: IndexArray, fanout: int, seed: int
    ) -> tuple[IntArray, IndexArray]:
        """Sampled neighbours of nodes that this process computes, ragged."""
        return sample_neighbors(self.messages[message].graph, nodes, fanout, seed)

    def rows(self, kind: str, nodes: IndexArray) -> NodeRows:
        """Inputs of distinct nodes, ascending; all processes must call it together."""
        import torch

        requested = self.ranks.ids(nodes)
        x = self._inputs(kind, requested)
        if self.ranks.size == 1:
            return NodeRows(x, Share(slice(0, len(nodes)), len(nodes)), None)
        union, count = np.unique(np.concatenate(requested), return_counts=True)
        position = np.searchsorted(union, nodes).astype(np.int32)
        # A node that several processes need counts once in the statistics of batch norm.
        weight = torch.from_numpy((1.0 / count[position]).astype(np.float32))
        return NodeRows(x, Share(position, len(union)), weight)

    def _inputs(self, kind: str, requested: list[IndexArray]) -> Tensor:
        return self.x[kind][as_index(requested[self.ranks.rank])]

    def footprint(self) -> dict[str, int | str]:
        """The kind of storage and the bytes that this process stores."""
        size = sum(x.numel() * x.element_size() for x in self.x.values())
        graphs = [part.graph for part in self.messages]
        size += sum(graph.indices.nbytes + graph.indptr.nbytes for graph in graphs)
        return {"graph": type(self).__name__.lower(), "held_bytes": int(size)}


class Partitioned(Replicated):
    """Each process stores adjacency rows and inputs of a range of the nodes of every kind.

    All processes store about the same number of bytes.
    """

    def __init__(self, messages: list[Messages], means: Inputs, ranks: Ranks) -> None:
        self.bounds = {
            kind: _bounds(x, [p.graph for p in messages if p.into == kind], ranks.size)
            for kind, x in means.items()
        }
        rank = ranks.rank
        self.begin = {kind: int(ends[rank]) for kind, ends in self.bounds.items()}
        here = {kind: slice(*ends[rank : rank + 2]) for kind, ends in self.bounds.items()}
        parts = [Messages(p.into, p.out_of, _rows(p.graph, here[p.into])) for p in messages]
        # A view would keep the inputs of all nodes, which this process shall not store.
        super().__init__(parts, {kind: x[here[kind]].copy() for kind, x in means.items()}, ranks)

    def share(self, kind: str, nodes: IndexArray) -> Share:
        ends = np.searchsorted(nodes, self.bounds[kind])
        begin, end = (int(end) for end in ends[self.ranks.rank : self.ranks.rank + 2])
        return Share(slice(begin, end), len(nodes))

    def neighbors(
        self, message: int, nodes: IndexArray, fanout: int, seed: int
    ) -> tuple[IntArray, IndexArray]:
        part = self.messages[message]
        return sample_neighbors(part.graph, nodes, fanout, seed, first=self.begin[part.into])

    def _inputs(self, kind: str, requested: list[IndexArray]) -> Tensor:
        import torch

        rank, begin = self.ranks.rank, self.begin[kind]
        ends = [np.searchsorted(nodes, self.bounds[kind]) for nodes in requested]
        answers = [
            self.x[kind][as_index(nodes[e[rank] : e[rank + 1]] - begin)]
            for nodes, e in zip(requested, ends, strict=True)
        ]
        sizes = np.diff(ends[rank]).tolist()
        return torch.cat(self.ranks.swap(answers, sizes))  # ranges of ranks ascend, as ids do


def _bounds(x: FloatArray, graphs: list[Graph], size: int) -> IntArray:
    """int64[size + 1]: first node of the range of each process, and the end of the last."""
    node_bytes = np.full(len(x), x.shape[1] * x.itemsize, np.int64)
    for graph in graphs:
        # An int64 of ``indptr`` a row, an int32 of ``indices`` an edge.
        node_bytes += 8 + 4 * graph.degree
    total = np.cumsum(node_bytes)
    ends = [total[-1] * rank / size for rank in range(1, size)] if len(x) else [0] * (size - 1)
    return np.concatenate(([0], np.searchsorted(total, ends), [len(x)])).astype(np.int64)


def _rows(graph: Graph, rows: slice) -> Graph:
    """A copy of some rows, over the same columns."""
    ends = np.asarray(graph.indptr[rows.start : rows.stop + 1])
    edges = slice(int(ends[0]), int(ends[-1]))
    none = np.zeros(0, np.float32)
    return Graph(
        ends - ends[0],
        np.array(graph.indices[edges]),
        none,
        none.astype(np.int64),
        none.astype(np.int64),
        graph.targets,
    )
