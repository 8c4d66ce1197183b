"""Oracles: plain definitions that tests compare with the fast kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping

Neighbors = Mapping[int, set[int]]


def two_hop_scores(neighbors: Neighbors, query: int, candidate: int) -> dict[str, float]:
    """The five neighbourhood scores of a pair, by their definitions."""
    common = neighbors[query] & neighbors[candidate]
    either = neighbors[query] | neighbors[candidate]
    degree = {node: len(neighbors[node]) for node in common}
    return {
        "common_neighbors": float(len(common)),
        "adamic_adar": sum(1.0 / math.log(degree[node]) for node in common),
        "resource_allocation": sum(1.0 / degree[node] for node in common),
        "jaccard": len(common) / len(either) if common else 0.0,  # the union may be empty
        "preferential_attachment": float(len(neighbors[query]) * len(neighbors[candidate])),
    }


def two_hop_candidates(neighbors: Neighbors, query: int, min_common: int) -> set[int]:
    """All non-neighbours at distance two with enough common neighbours."""
    return {
        candidate
        for candidate in neighbors
        if candidate != query
        and candidate not in neighbors[query]
        and len(neighbors[query] & neighbors[candidate]) >= min_common
    }


def page_rank(
    neighbors: Neighbors, query: int, restart: float, steps: int = 200
) -> dict[int, float]:
    """Personalised PageRank by plain power iteration."""
    mass = {node: float(node == query) for node in neighbors}
    total = dict.fromkeys(neighbors, 0.0)
    # With a restart of 0.15, 200 steps leave less than 1e-14 of the mass.
    for _ in range(steps):
        following = dict.fromkeys(neighbors, 0.0)
        for node, amount in mass.items():
            total[node] += restart * amount
            for other in neighbors[node]:
                following[other] += (1.0 - restart) * amount / len(neighbors[node])
        mass = following
    return total
