"""Invalidation of cached responses by events of other users.

A block, a hidden connection or a departure may change the list of a user that the event does not
name: one whose list has the user, or names them as a mutual connection. All other cached responses
stay valid, so that no event empties the cache.
"""

from __future__ import annotations

import threading

import numpy as np

from nextedge.data.ids import IdMap
from nextedge.events.state.overlay import Overlay
from nextedge.graph.csr import Graph
from nextedge.types import UNKNOWN, IndexArray


class Invalidation:
    """The events of an overlay that hide a user or an item, in the positions of one release."""

    def __init__(self, users: IdMap, items: IdMap, connections: Graph) -> None:
        self._ids = users, users, items
        self._connections = connections
        self._events: list[tuple[str | None, str | None, str | None]] | None = None
        self._rows = np.zeros((0, 3), np.int32)
        """Of each event its user, other user and item; UNKNOWN for none."""
        self._pairs = np.zeros(0, bool)
        """Whether an event names two users."""
        self._lock = threading.Lock()

    def invalidates(
        self, overlay: Overlay, since: int, kind: str, user: int, listed: IndexArray
    ) -> bool:
        """Whether an event from the ``since``-th on may change a list.

        Args:
            user: position of the list's user, or UNKNOWN.
            listed: int32[k] positions in the list.
        """
        with self._lock:  # an event that two threads add twice would hide the next
            self._catch_up(overlay)
            rows, pairs = self._rows[since:], self._pairs[since:]
        if kind != "people":
            return bool(np.isin(rows[:, 2], listed).any())
        connected = self._connections.row(user) if user != UNKNOWN else np.zeros(0, np.int32)
        near = np.isin(rows[:, :2], np.concatenate((connected, listed, [user])))
        # UNKNOWN stands for no user, and for an unknown one: the two are not the same
        near &= rows[:, :2] != UNKNOWN
        # an event of two users changes only lists in which both take part
        return bool(np.where(pairs, near.all(axis=1), near.any(axis=1)).any())

    def _catch_up(self, overlay: Overlay) -> None:
        events = overlay.narrowed
        if events is not self._events:  # the log was folded again
            self._rows, self._pairs = self._rows[:0], self._pairs[:0]
        new = events[len(self._rows) :]
        if new:
            rows = [
                [
                    UNKNOWN if name is None else ids.position(name)
                    for ids, name in zip(self._ids, event, strict=True)
                ]
                for event in new
            ]
            pairs = [a is not None and b is not None for a, b, _ in new]
            self._pairs = np.concatenate((self._pairs, pairs))
            self._rows = np.concatenate((self._rows, np.array(rows, np.int32)))
        self._events = events
