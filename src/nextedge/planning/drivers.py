"""What the laws of a build grow with: drivers, and the settings that bound them.

What is bounded by a setting (label rows by ``ranker.max_rows``, evaluated queries by their maximum,
candidates by ``candidates``) has a bounded driver, so that laws which were measured at some
thousand users hold at any number of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nextedge.build.time_split.split import LABEL_WINDOWS
from nextedge.config import SurfaceConfig
from nextedge.planning.coefficients import Coefficients
from nextedge.planning.workload import PEOPLE, Size

EVALUATED = 20_000
"""Queries that ``evaluate`` takes at most (tested to be those of the step)."""
SHOWN = 100_000
"""Impressions that ``evaluate`` takes at most (tested to be those of the step)."""
SHOWN_SHARE = 1 / 15
"""Of all impressions, those that the evaluation window decides; of the synthetic tenant."""
FUSION = 1_000
COLD_SHARE, COLD_PARTS = 0.1, 3


@dataclass(frozen=True)
class Labels:
    """What a surface learns from, within its bounds.

    Attributes:
        fused: queries that weigh the sources.
        queries: label queries of all windows, and of those without edges.
        rows: candidate rows that are held at once for training.
        trained: rows that rankers are fitted on, all fits together.
        evaluated: queries of the evaluation.
    """

    fused: float
    queries: float
    rows: float
    trained: float
    evaluated: float


def labels_of(
    kind: str, users: float, surface: SurfaceConfig, coefficients: Coefficients
) -> Labels:
    """How many of the users have labels, by what was measured, within the surface's bounds."""
    labelled = min(coefficients.law(f"count labelled {kind}").at(users), users)
    evaluated = min(coefficients.law(f"count evaluated {kind}").at(users), users)
    return bounded_labels(users, labelled, evaluated, surface)


def bounded_labels(
    users: float, labelled: float, evaluated: float, surface: SurfaceConfig
) -> Labels:
    """The bounds of ``ranker`` over so many labelled queries a window."""
    a_query = surface.ranker.top_negatives + surface.ranker.sampled_negatives
    window = min(surface.ranker.max_rows, labelled * a_query)
    most_cold = max(1000, surface.ranker.max_rows // COLD_PARTS)
    cold = min(most_cold, users * COLD_SHARE / COLD_PARTS * a_query)
    later = sum(range(1, LABEL_WINDOWS)) + LABEL_WINDOWS
    cold_later = sum(range(1, COLD_PARTS)) + COLD_PARTS
    return Labels(
        fused=min(FUSION, labelled),
        queries=(LABEL_WINDOWS * window + COLD_PARTS * cold) / a_query,
        rows=LABEL_WINDOWS * window,
        trained=later * window + cold_later * cold,
        evaluated=min(EVALUATED, evaluated),
    )


def reach(size: Size, surface: SurfaceConfig) -> float:
    """Candidates that a query has at most: as configured, and as many as there are."""
    there = size.users if surface.kind == PEOPLE else size.items
    return min(float(surface.candidates), there)


def drivers(
    size: Size, labels: Mapping[str, Labels], reached: Mapping[str, float]
) -> dict[str, float]:
    """What the laws of a build grow with, by name of the driver.

    Args:
        reached: candidates of a query, by surface.
    """
    found = {
        "rows": size.rows,
        "records": size.records,
        "nodes": size.nodes,
        "users": size.users,
        "items": size.items,
        "interactions": size.interactions,
    }
    for kind, many in reached.items():
        found[f"candidates of {kind}, all users"] = size.users * many
        found[f"shown to {kind}"] = min(size.impressions * SHOWN_SHARE, SHOWN)
    for kind, each in labels.items():
        found |= {
            f"fused candidates of {kind}": each.fused * reached[kind],
            f"labelled candidates of {kind}": each.queries * reached[kind],
            f"label rows of {kind}": each.rows,
            f"training rows of {kind}": each.trained,
            f"evaluated candidates of {kind}": each.evaluated * reached[kind],
        }
    return found


_BY_STEP = {
    "tables": "rows",
    "entities": "rows",
    "snapshot": "records",
    "graphs": "records",
    "embed": "nodes",
    "sources": "nodes",
    "index": "nodes",
    "rank": "records",
    "evaluate": "records",
}
_BY_PART = {
    "fusion": "fused candidates of",
    "labels": "labelled candidates of",
    "training": "training rows of",
    "queries": "evaluated candidates of",
    "rank": "label rows of",
    "evaluate": "evaluated candidates of",
}
_BY_SOURCE = {
    "ease": "items",
    "slist": "items",
    "item_cooccurrence": "interactions",
    "item_knn": "interactions",
    "graph_filter": "interactions",
}


def driver_of(law: str) -> str:
    """Name of the driver of a law of the build, as ``cpu fit items ease`` or ``memory rank people``."""
    quantity, _, of = law.partition(" ")
    part, _, rest = of.partition(" ")
    if quantity == "count":
        return "users"
    if part == "fit":
        return _BY_SOURCE.get(rest.split()[-1], "nodes")
    if part == "evaluate" and quantity in ("cpu", "wall"):
        return f"shown to {rest}"
    if part == "publish":
        return f"candidates of {rest}, all users"
    if part == "network":
        return "records"
    bounded = part in _BY_PART and quantity not in ("cpu", "wall")
    if part in ("fusion", "labels", "training", "queries") or (
        bounded and part in ("rank", "evaluate")
    ):
        return f"{_BY_PART[part]} {rest}"
    return _BY_STEP[part]
