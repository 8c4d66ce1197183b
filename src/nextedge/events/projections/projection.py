"""State that the overlay derives from events beside its own: one class a file, found by name.

A projection is a pure function of the events in their order, so that a replay gives the same. A
checkpoint has its state; the overlay loads it before it folds the events after the checkpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from nextedge.discovery import import_modules, named_subclasses
from nextedge.events.event import Event


class Projection(ABC):
    """State that events add up to."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Of what ``dump`` gives; a checkpoint of another version is ignored."""

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Add one event; the overlay passes each event once."""

    @abstractmethod
    def dump(self) -> dict[str, Any]:
        """The whole state as plain JSON values; lists and tables at its top may be long."""

    @abstractmethod
    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what ``dump`` gave; nothing was applied before."""


def new_projections() -> dict[str, Projection]:
    """An empty projection of every kind, by name."""
    import_modules("nextedge.events.projections")
    return {name: cls() for name, cls in named_subclasses(Projection).items()}  # type: ignore[type-abstract]
