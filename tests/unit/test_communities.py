"""Communities: as modular as a library's, the same every time, nobody alone in one."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

from nextedge.graph.communities import communities
from nextedge.graph.csr import Graph, build_graph, mirrored


def graph_of(edges: networkx.Graph, nodes: int) -> Graph:
    pairs = np.array(list(edges.edges), np.int32).reshape(-1, 2)
    source, target = mirrored(pairs[:, 0], pairs[:, 1])
    return build_graph(source, target, nodes, nodes)


def modularity(edges: networkx.Graph, label: np.ndarray) -> float:
    groups = [set(np.flatnonzero(label == value)) & set(edges) for value in np.unique(label)]
    return networkx.community.modularity(edges, [group for group in groups if group])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_as_modular_as_a_library(seed: int) -> None:
    edges = networkx.powerlaw_cluster_graph(400, 4, 0.6, seed=seed)
    inner, outer = communities(graph_of(edges, 400))
    theirs = networkx.community.louvain_communities(edges, seed=seed)
    wanted = networkx.community.modularity(edges, theirs)
    assert modularity(edges, outer) > 0.93 * wanted
    assert modularity(edges, inner) <= modularity(edges, outer) + 1e-9
    assert np.array_equal(communities(graph_of(edges, 400))[1], outer)


def test_planted_groups_are_found() -> None:
    edges = networkx.planted_partition_graph(5, 30, 0.4, 0.01, seed=4)
    _, outer = communities(graph_of(edges, 150))
    assert len(np.unique(outer)) == 5
    assert all(len(np.unique(outer[start : start + 30])) == 1 for start in range(0, 150, 30))


def test_small_lie_within_large() -> None:
    inner, outer = communities(graph_of(networkx.powerlaw_cluster_graph(300, 3, 0.5, seed=1), 300))
    assert all(len(np.unique(outer[inner == value])) == 1 for value in np.unique(inner))


@pytest.mark.parametrize("nodes", [0, 3])
def test_without_edges_there_are_none(nodes: int) -> None:
    inner, outer = communities(graph_of(networkx.empty_graph(0), nodes))
    assert inner.tolist() == outer.tolist() == [-1] * nodes
