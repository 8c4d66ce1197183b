"""Graphs of a snapshot, built in memory or into the mapped files of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nextedge.cores import thread_count
from nextedge.engines.base import Engine
from nextedge.engines.blocks import run_here, run_where_worth
from nextedge.graph.assemble import EdgeList, assemble_into
from nextedge.graph.csr import Graph, graph_of
from nextedge.storage.files import vanishing


@dataclass(frozen=True)
class GraphBuilder:
    """Builds graphs from edges.

    Attributes:
        folder: each graph gets a folder in it; None builds in memory.
        engine: makes the rows of graphs in a folder; None is this process.
    """

    folder: Path | None = None
    engine: Engine | None = None

    def graph(self, name: str, edges: EdgeList, sources: int, targets: int) -> Graph:
        """The graph of the edges, see ``nextedge.graph.csr.build_graph``."""
        if self.folder is None:
            return graph_of(edges, sources, targets)
        (self.folder / name).mkdir()
        here = partial(run_here, threads=thread_count())
        run = here if self.engine is None else partial(run_where_worth, self.engine.map_blocks)
        with vanishing(self.folder) as scratch:
            assemble_into(self.folder / name, edges, sources, run, scratch)
        np.save(self.folder / name / "targets.npy", np.int64(targets))
        return Graph.load(self.folder / name)

    def reverse(self, name: str, graph: Graph) -> Graph:
        """The edges of a graph seen from its targets."""
        return self.graph(name, graph.reversed_edges(), graph.targets, len(graph))
