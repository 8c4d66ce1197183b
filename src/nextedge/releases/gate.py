"""The gate: whether a new release may replace the served one.

Each release is evaluated on the end of its own history, by the same protocol and under the same
leakage rules. The tolerance allows for chance, because their last days differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nextedge.releases.manifest import Release

_MAIN = "ndcg@"


def faults(new: Release, served: Release | None, max_drop: float) -> list[str]:
    """Reasons against serving a release; empty if the release may be served.

    The release must have every served surface, with an NDCG at most ``max_drop`` (a share)
    below the served one. Surfaces without an NDCG at the same k in both are not compared.
    """
    reasons = []
    before: Mapping[str, Any] = {} if served is None else served.manifest["metrics"]
    for surface, figures in before.items():
        if surface not in new.surfaces:
            reasons.append(f"the surface {surface} is served and is not in release {new.id}")
            continue
        metrics = new.manifest["metrics"][surface]
        for name in (n for n in figures if n.startswith(_MAIN) and n in metrics):
            if metrics[name] < (1 - max_drop) * figures[name]:
                reasons.append(
                    f"{surface}: {name} {metrics[name]:.4f} is more than {max_drop:.0%} below "
                    f"{figures[name]:.4f} of the served release"
                )
    return reasons
