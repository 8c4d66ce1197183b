"""The state of a live log's events up to a position: what a checkpoint writes and loads."""

from __future__ import annotations

import math
from typing import TypeVar

from nextedge.events.event import Event
from nextedge.events.logs.log import BEGINNING, LiveLog
from nextedge.events.projections.projection import Projection, new_projections
from nextedge.events.state.folded_state import FoldedState

AnyProjection = TypeVar("AnyProjection", bound=Projection)


class FoldedLog(FoldedState):
    """State and projections of the events of a log.

    Attributes:
        position, previous: of the last event that was folded, and of the one before it.
        last_event_id: of the last event that was folded.
        folded: events that this process has folded.
        projections: by name.
        generation: of the log, as it was folded.
    """

    def __init__(self, log: LiveLog, shown_days: float = math.inf) -> None:
        super().__init__(shown_days)
        self.log = log
        self.position = self.previous = BEGINNING
        self.last_event_id = ""
        self.folded = 0
        self.projections = new_projections()
        self.generation: object = None

    def projection(self, kind: type[AnyProjection]) -> AnyProjection:
        """The projection of a class."""
        found = self.projections[kind.name]
        assert isinstance(found, kind)
        return found

    def replay(self) -> None:
        """Fold all events after the position."""
        for position, event in self.log.read(self.position):
            self._apply(event)
            self.previous, self.position = self.position, position
            self.last_event_id = event.event_id
            self.folded += 1

    def _apply(self, event: Event) -> None:
        self.add(event)
        for projection in self.projections.values():
            projection.apply(event)
