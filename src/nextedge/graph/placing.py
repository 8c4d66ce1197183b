"""Where the graphs of a snapshot lie while it is made: in memory, or in files that are mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nextedge.graph.assemble import EdgeList, assemble_into
from nextedge.graph.csr import ENTRY_BYTES, Graph, graph_of
from nextedge.memory import bound_bytes
from nextedge.storage import vanishing

_SHARE = 1 / 32
"""Of the memory that a build may take, which one graph may hold; larger ones lie in files."""


@dataclass(frozen=True)
class Place:
    """A folder for graphs.

    Attributes:
        folder: where files go.
        lasting: every graph stays there, in a folder of its name. Else small ones are held in
            memory, and the files of large ones are gone with the graph, or with the process.
    """

    folder: Path
    lasting: bool = False

    def graph(self, name: str, edges: EdgeList, sources: int, targets: int) -> Graph:
        """The graph of the edges, see ``nextedge.graph.csr.build_graph``."""
        if self.lasting:
            (self.folder / name).mkdir()
            return _mapped(edges, sources, targets, self.folder / name)
        count = len(edges.source) * (2 if edges.mirrored else 1)
        if count * ENTRY_BYTES <= bound_bytes() * _SHARE:
            return graph_of(edges, sources, targets)
        with vanishing(self.folder) as folder:
            return _mapped(edges, sources, targets, folder)

    def reverse(self, name: str, graph: Graph) -> Graph:
        """A graph's edges seen from its targets."""
        return self.graph(name, graph.reversed_edges(), graph.targets, len(graph))


def _mapped(edges: EdgeList, sources: int, targets: int, folder: Path) -> Graph:
    assemble_into(folder, edges, sources)
    np.save(folder / "targets.npy", np.int64(targets))
    return Graph.load(folder)
