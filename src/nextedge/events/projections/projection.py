"""What the overlay folds events into beside its own state: one class a file, found by its name.

A fold is a pure function of the events in their order, so that a replay gives the same. It is
kept with the overlay's own state, and loaded before the events after it are folded in.
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
    """Of what ``dump`` gives; another one folds the whole log anew."""

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Add one event; each is given once."""

    @abstractmethod
    def dump(self) -> dict[str, Any]:
        """The whole state as plain JSON values; lists and tables at its top may be long."""

    @abstractmethod
    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what ``dump`` gave; the fold is empty before."""


def new_projections() -> dict[str, Projection]:
    """An empty fold of every kind, by name."""
    import_modules("nextedge.events.projections")
    return {name: cls() for name, cls in named_subclasses(Projection).items()}  # type: ignore[type-abstract]
