"""Oracles: the plainest code that computes what a fast kernel computes."""

from __future__ import annotations

import math
from collections.abc import Mapping

Neighbours = Mapping[int, set[int]]


def two_hop_scores(neighbours: Neighbours, query: int, candidate: int) -> dict[str, float]:
    """The five neighbourhood scores of a pair, straight from their definitions."""
    common = neighbours[query] & neighbours[candidate]
    either = neighbours[query] | neighbours[candidate]
    degree = {node: len(neighbours[node]) for node in common}
    return {
        "common_neighbors": float(len(common)),
        "adamic_adar": sum(1.0 / math.log(degree[node]) for node in common),
        "resource_allocation": sum(1.0 / degree[node] for node in common),
        "jaccard": len(common) / len(either) if common else 0.0,
        "preferential_attachment": float(len(neighbours[query]) * len(neighbours[candidate])),
    }


def two_hop_candidates(neighbours: Neighbours, query: int, min_common: int) -> set[int]:
    """All non-neighbours at distance two with enough common neighbours."""
    return {
        candidate
        for candidate in neighbours
        if candidate != query
        and candidate not in neighbours[query]
        and len(neighbours[query] & neighbours[candidate]) >= min_common
    }


def page_rank(
    neighbours: Neighbours, query: int, restart: float, steps: int = 200
) -> dict[int, float]:
    """Personalised PageRank by plain power iteration."""
    mass = {node: float(node == query) for node in neighbours}
    total = dict.fromkeys(neighbours, 0.0)
    for _ in range(steps):
        following = dict.fromkeys(neighbours, 0.0)
        for node, amount in mass.items():
            total[node] += restart * amount
            for other in neighbours[node]:
                following[other] += (1.0 - restart) * amount / len(neighbours[node])
        mass = following
    return total
