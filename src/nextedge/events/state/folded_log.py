"""State and projections of a live log up to a position: the content of a checkpoint."""

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
        position, previous: of the last folded event and the one before it.
        last_event_id: of the last folded event.
        folded: number of events that this process has folded.
        generation: of the log when it was folded.
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
        projection = self.projections[kind.name]
        assert isinstance(projection, kind)
        return projection

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
