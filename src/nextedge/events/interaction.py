"""Which events are interactions of a user with an item, and what each weighs."""

from __future__ import annotations

from nextedge.events.event import Event

INTERACTIONS = ("interact", "click", "purchase")
"""Types of events that are interactions where they name an item."""
AGAINST = ("dismiss", "block")
"""Actions of an ``interact`` that are no interactions."""


def interaction_weight(event: Event) -> float | None:
    """What one event adds to the edge of a user and an item; None where it is no interaction.

    The overlay uses it before the next build makes a row of the same event by
    ``with_interactions``; the two agree.
    """
    if event.type not in INTERACTIONS or event.item_id is None:
        return None
    if event.type == "interact" and event.given("event") in AGAINST:
        return None
    weight = event.given("weight")
    return 1.0 if weight is None else float(weight)
