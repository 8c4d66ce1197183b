"""Edges that events made and ended: what the graphs of a release lack.

Columns to which every event adds a row, so that all of them become positions and graph rows in
a few array operations: 17 bytes a connection and 20 an interaction, beside the ids that are new.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from nextedge.events.event import Event
from nextedge.events.fold import Fold
from nextedge.types import IntArray

_MADE = frozenset({"connect", "accept"})
_VERSIONED = frozenset({"hide_connection", "unhide_connection", "leave"})
"""Events that change the graphs by what the overlay itself keeps of them."""


class Names:
    """Ids as text, numbered in the order they came."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.all = names or []
        self._number = {name: number for number, name in enumerate(self.all)}

    def number(self, identifier: object) -> int:
        """The number of an id, a new one for one that is new."""
        name = str(identifier)
        number = self._number.get(name)
        if number is None:
            number = self._number[name] = len(self.all)
            self.all.append(name)
        return number


class Columns:
    """Rows of numbers, column by column."""

    def __init__(self, **codes: str) -> None:
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in codes.items()}

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def add(self, *row: Any) -> None:
        """One more row, in the order of the columns."""
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)

    def copy(self) -> dict[str, np.ndarray]:
        """The columns as they are now."""
        return {name: np.array(column) for name, column in self._columns.items()}

    def dump(self) -> dict[str, list[float]]:
        """Plain lists."""
        return {name: column.tolist() for name, column in self._columns.items()}

    def load(self, dumped: Mapping[str, list[float]]) -> None:
        """Append what ``dump`` gave."""
        for name, column in self._columns.items():
            column.extend(dumped[name])


class LiveEdges(Fold):
    """Connections made and ended, and interactions, since the log began.

    Attributes:
        users, items: ids by number.
        connections: ``source``, ``target`` (int32 numbers), ``time`` (µs), ``made`` (1, or 0: ended).
        interactions: ``user``, ``item`` (int32 numbers), ``time`` (µs), ``weight`` (float32).
        version: differs after every event that changes a graph.
    """

    name = "live_edges"

    def __init__(self) -> None:
        self.users, self.items = Names(), Names()
        self.connections = Columns(source="i", target="i", time="q", made="b")
        self.interactions = Columns(user="i", item="i", time="q", weight="f")
        self.version = 0

    def apply(self, event: Event) -> None:
        made = event.type in _MADE
        if (made or event.type == "disconnect") and event.candidate_id is not None:
            source, target = map(self.users.number, (event.user_id, event.candidate_id))
            self.connections.add(source, target, event.micros, made)
        elif event.type == "interact":
            user, item = self.users.number(event.user_id), self.items.number(event.item_id)
            self.interactions.add(user, item, event.micros, 1.0)
        elif event.type not in _VERSIONED:
            return
        self.version += 1

    def dump(self) -> dict[str, Any]:
        return {
            "users": self.users.all,
            "items": self.items.all,
            "connections": self.connections.dump(),
            "interactions": self.interactions.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        self.users, self.items = Names(dumped["users"]), Names(dumped["items"])
        self.connections.load(dumped["connections"])
        self.interactions.load(dumped["interactions"])
        self.version += 1


def latest_of_pair(source: IntArray, target: IntArray, time: IntArray, made: IntArray) -> IntArray:
    """int64[pairs]: the row that holds for each pair, whichever end comes first.

    The latest does; of two at one time the one that ended it.
    """
    left, right = np.minimum(source, target), np.maximum(source, target)
    order = np.lexsort((1 - made.astype(np.int64), time, right, left))
    left, right = left[order], right[order]
    last = np.ones(len(order), bool)
    last[:-1] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return order[last]
