"""Who may be evidence of a recommendation, by what was recorded since the release."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nextedge.events.overlay import Overlay
from nextedge.serving.release import LoadedRelease
from nextedge.types import IndexArray

_NOBODY: IndexArray = np.zeros(0, np.int32)


@dataclass(frozen=True)
class LiveEvidence:
    """Live state by the positions of a release, as reasons ask for it."""

    release: LoadedRelease
    overlay: Overlay

    def witnesses(self, query: int, others: IndexArray) -> IndexArray:
        """Those of others who are not gone, and with whom the query's link still holds."""
        if not len(others):
            return others
        ids = self.release.entities.users
        hidden = self.overlay.severed(ids.identifiers([query])[0].as_py())
        absent = self.overlay.absent
        if not hidden and not absent:
            return others
        names = ids.identifiers(others).to_pylist()
        return others[[str(n) not in hidden and str(n) not in absent for n in names]]

    def severed(self, candidate: int) -> IndexArray:
        """Whom a candidate blocked or is blocked by, left, or is connected to in secret."""
        ids = self.release.entities.users
        if not self.overlay.severs:
            return _NOBODY
        return ids.positions(sorted(self.overlay.severed(ids.identifiers([candidate])[0].as_py())))
