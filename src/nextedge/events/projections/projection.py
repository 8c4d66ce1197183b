"""The contract of projections: further state that the overlay derives from events.

A projection is a pure function of the events in their order, so that a replay gives the same state.
A checkpoint contains it. A new projection is one file with a subclass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from nextedge.discovery import import_modules, named_subclasses
from nextedge.events.event import Event


class Projection(ABC):
    """State derived from events."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # of the result of ``dump``: checkpoints of another are ignored

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Add one event; the overlay passes each event once."""

    @abstractmethod
    def dump(self) -> dict[str, Any]:
        """The state as plain JSON values; lists and tables at the top level may be long."""

    @abstractmethod
    def load(self, dumped: dict[str, Any]) -> None:
        """Load the result of ``dump`` into an empty projection."""


def new_projections() -> dict[str, Projection]:
    """An empty projection of every class, by name."""
    import_modules("nextedge.events.projections")
    return {name: cls() for name, cls in named_subclasses(Projection).items()}  # type: ignore[type-abstract]
