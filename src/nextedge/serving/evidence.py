"""Who may be evidence of a recommendation, by what was recorded since the release."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nextedge.events.state.overlay import Overlay
from nextedge.serving.release.loaded import LoadedRelease
from nextedge.types import IndexArray

_NOBODY = np.zeros(0, np.int32)


@dataclass(frozen=True)
class LiveEvidence:
    """Live state by the positions of a release, as reasons ask for it."""

    release: LoadedRelease
    overlay: Overlay

    def witnesses(self, query: int, others: IndexArray) -> IndexArray:
        """Those of others (ascending) who are not gone, and with whom the query's link still holds."""
        out = np.union1d(self.release.gone(self.overlay, "people"), self.severed(query))
        return others[~np.isin(others, out)] if len(out) else others

    def severed(self, candidate: int) -> IndexArray:
        """Whom a candidate blocked or is blocked by, left, or is connected to in secret."""
        ids = self.release.entities.users
        name = ids.identifier(candidate)
        names = self.overlay.severed(name) if name is not None else None
        if not names:
            return _NOBODY
        places = ids.positions(sorted(names))
        return places[places >= 0]
