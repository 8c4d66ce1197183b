"""What follows a renewal of a release over live edges, before it is served."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from nextedge.serving.caches.precomputed import CachedCandidates, PublishedCandidates
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import Requests


def derive(release: LoadedRelease) -> None:
    """Compute what follows from the edges once, so that no request waits for it."""
    snapshot = release.snapshot
    busiest = int((snapshot.connections.degree + snapshot.engagements.degree).argmax())
    for surface in release.surfaces.values():
        surface.line.run(_asking(busiest))


def refresh_lists(
    before: LoadedRelease, live: LoadedRelease, published: PublishedCandidates, most: int
) -> None:
    """Let kept candidates be found anew, of those whose lists the latest edges touch.

    Args:
        most: users beside those at the ends of edges.
    """
    published.renew(
        [
            (
                live.list_name(name, position),
                before.list_name(name, position),
                partial(_found, surface, position, live.edges),
            )
            for position in live.newly_touched(before, most).tolist()
            for name, surface in live.surfaces.items()
        ]
    )


def _found(surface: LoadedSurface, position: int, edges: str) -> CachedCandidates:
    return CachedCandidates(surface.line.retrieve(_asking(position)), edges=edges)


def _asking(position: int) -> Requests:
    return Requests(np.array([position], np.int32), int(time.time() * 1e6), 1)
