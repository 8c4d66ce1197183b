"""Interactions of events, as columns that become rows of a release's graphs.

Columns, because a few array operations then convert all events to positions and graph rows. An
interaction takes 20 bytes, besides new ids.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from nextedge.events.event import Event
from nextedge.events.interaction import interaction_weight
from nextedge.events.projections.projection import Projection

# events that change the graphs through the state of the overlay itself
_OF_PEOPLE = frozenset(
    {"connect", "accept", "disconnect", "hide_connection", "unhide_connection", "leave"}
)


class Names:
    """Ids as text, numbered in order of arrival."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.all = names or []
        self._number = {name: number for number, name in enumerate(self.all)}

    def number(self, identifier: object) -> int:
        """Number of an id; a new id gets the next number."""
        name = str(identifier)
        number = self._number.get(name)
        if number is None:
            number = self._number[name] = len(self.all)
            self.all.append(name)
        return number


class Columns:
    """Rows of numbers, stored by column."""

    def __init__(self, **codes: str) -> None:
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in codes.items()}

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def add(self, *row: Any) -> None:
        """Add one row, in the order of the columns."""
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)

    def copy(self) -> dict[str, np.ndarray]:
        """Copies of the columns, as arrays."""
        return {name: np.array(column) for name, column in self._columns.items()}

    def dump(self) -> dict[str, list[float]]:
        """Plain lists."""
        return {name: column.tolist() for name, column in self._columns.items()}

    def load(self, dumped: Mapping[str, list[float]]) -> None:
        """Append the result of ``dump``."""
        for name, column in self._columns.items():
            column.extend(dumped[name])


class LiveEdges(Projection):
    """Interactions since the log began.

    Attributes:
        users, items: ids by number.
        interactions: ``user``, ``item`` (int32 numbers), ``time`` (µs), ``weight`` (float32).
        changes: increases with every event that changes a graph.
    """

    name = "live_edges"

    def __init__(self) -> None:
        self.users, self.items = Names(), Names()
        self.interactions = Columns(user="i", item="i", time="q", weight="f")
        self.changes = 0

    def apply(self, event: Event) -> None:
        weight = interaction_weight(event)
        if weight is not None:
            user, item = self.users.number(event.user_id), self.items.number(event.item_id)
            self.interactions.add(user, item, event.micros, weight)
        elif event.type not in _OF_PEOPLE:
            return
        self.changes += 1

    def dump(self) -> dict[str, Any]:
        return {
            "users": self.users.all,
            "items": self.items.all,
            "interactions": self.interactions.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        self.users, self.items = Names(dumped["users"]), Names(dumped["items"])
        self.interactions.load(dumped["interactions"])
        self.changes += 1
