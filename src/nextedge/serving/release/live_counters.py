"""The live part of real-time features, in the positions of one release."""

from __future__ import annotations

import threading

import numpy as np

from nextedge.events.projections.counted import CountedFacts
from nextedge.events.state.overlay import Overlay
from nextedge.features.backfill import item_category
from nextedge.features.counters import INTERACT
from nextedge.features.live import LiveCounters
from nextedge.graph.snapshot import Snapshot


class LiveFacts:
    """Counts the events of an overlay that are later than a release, each once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._facts: CountedFacts | None = None
        self._taken = 0
        self._counters: LiveCounters | None = None
        self._lock = threading.Lock()

    def counters(self, overlay: Overlay) -> LiveCounters | None:
        """The current counts; None without later events, or if the release has no counters."""
        if not self._snapshot.counters:
            return None
        facts = overlay.projection(CountedFacts)
        if facts is not self._facts or facts.added != self._taken:
            with self._lock:  # a fact that two threads add would count twice
                self._catch_up(facts)
        return self._counters

    def _catch_up(self, facts: CountedFacts) -> None:
        counters, taken = self._counters, self._taken
        if facts is not self._facts:  # the log was folded again
            counters, taken = None, 0
        entities, as_of = self._snapshot.entities, self._snapshot.as_of
        added, taken = facts.since(taken)
        for fact in added:
            # the counters of the release have it already
            if fact.time <= as_of:
                continue
            if counters is None:
                counters = self._empty()
            user = entities.users.position(fact.user)
            if fact.kind == INTERACT:
                counters.interact(user, entities.items.position(fact.other), fact.time)
            else:
                counters.connect((user, entities.users.position(fact.other)), fact.time, fact.sign)
            counters.tick(fact.time)
        self._counters, self._taken, self._facts = counters, taken, facts

    def _empty(self) -> LiveCounters:
        entities = self._snapshot.entities
        category = item_category(entities.item_attributes)
        codes = None if category is None else np.asarray(category.codes)
        return LiveCounters(len(entities.users), len(entities.items), codes, self._snapshot.as_of)
