"""The gate: whether a new release may be served in the place of the one that is.

Both were evaluated on the end of their own history, by the same protocol and under the same
leakage rules; a new release may lose a little by chance, as its last days are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nextedge.releases.manifest import Release

_MAIN = "ndcg@"


def faults(new: Release, served: Release | None, max_drop: float) -> list[str]:
    """What speaks against serving a release; nothing where it may be served.

    Every surface that is served must be in it, and the NDCG of its full line must not be lower
    by more than ``max_drop`` (a share of the served one's). A surface of which one of the two has
    no such figure, or one at another k, is not compared.
    """
    found = []
    before: Mapping[str, Any] = {} if served is None else served.manifest["metrics"]
    for surface, figures in before.items():
        if surface not in new.surfaces:
            found.append(f"the surface {surface} is served and is not in release {new.id}")
            continue
        mine = new.manifest["metrics"][surface]
        for name in (n for n in figures if n.startswith(_MAIN) and n in mine):
            if mine[name] < (1 - max_drop) * figures[name]:
                found.append(
                    f"{surface}: {name} {mine[name]:.4f} is more than {max_drop:.0%} below "
                    f"{figures[name]:.4f} of the served release"
                )
    return found
