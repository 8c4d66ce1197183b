"""Which kept answers an event of other people touches.

A block, a hidden connection or a departure may change the list of somebody whom the event does not
name: one who is shown the person, or is told of them as a mutual connection. Everybody else's
answers stay as they are, so that no event empties every cache.
"""

from __future__ import annotations

import threading

import numpy as np

from nextedge.data.ids import IdMap
from nextedge.events.state.overlay import Overlay
from nextedge.graph.csr import Graph
from nextedge.types import UNKNOWN, IndexArray


class Touched:
    """The narrowing events of an overlay by the positions of one release.

    A row an event: its user, its other user, its item; UNKNOWN where it names none.
    """

    def __init__(self, users: IdMap, items: IdMap, connections: Graph) -> None:
        self._ids = users, users, items
        self._connections = connections
        self._events: list[tuple[str | None, str | None, str | None]] | None = None
        self._rows = np.zeros((0, 3), np.int32)
        self._pairs = np.zeros(0, bool)
        self._lock = threading.Lock()

    def touches(
        self, overlay: Overlay, since: int, kind: str, viewer: int, shown: IndexArray
    ) -> bool:
        """Whether an event from the ``since``-th on may change a list.

        Args:
            viewer: position of whose list it is, or UNKNOWN.
            shown: int32[k] positions in the list.
        """
        with self._lock:  # an event that two threads add twice would hide the next
            self._catch_up(overlay)
            rows, pairs = self._rows[since:], self._pairs[since:]
        if kind != "people":
            return bool(np.isin(rows[:, 2], shown).any())
        own = self._connections.row(viewer) if viewer != UNKNOWN else np.zeros(0, np.int32)
        near = np.isin(rows[:, :2], np.concatenate((own, shown, [viewer])))
        near &= rows[:, :2] != UNKNOWN
        return bool(np.where(pairs, near.all(axis=1), near.any(axis=1)).any())

    def _catch_up(self, overlay: Overlay) -> None:
        events = overlay.narrowed
        if events is not self._events:  # the log was folded anew
            self._rows, self._pairs = self._rows[:0], self._pairs[:0]
        fresh = events[len(self._rows) :]
        if fresh:
            rows = [
                [
                    UNKNOWN if name is None else ids.position(name)
                    for ids, name in zip(self._ids, event, strict=True)
                ]
                for event in fresh
            ]
            pairs = [a is not None and b is not None for a, b, _ in fresh]
            known = np.array(rows, np.int32)
            self._pairs = np.concatenate((self._pairs, pairs))
            self._rows = np.concatenate((self._rows, known))
        self._events = events
