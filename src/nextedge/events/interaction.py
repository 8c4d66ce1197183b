"""Weights of events that are interactions of a user with an item."""

from __future__ import annotations

from nextedge.events.event import Event

INTERACTIONS = ("interact", "click", "purchase")  # types of events, if they name an item
AGAINST = ("dismiss", "block")  # actions of an ``interact`` event that are no interactions


def interaction_weight(event: Event) -> float | None:
    """Weight that an event adds to the edge of its user and item; None if it is no interaction.

    The overlay uses it until the next build, whose rows of the event (``with_interactions``) agree.
    """
    if event.type not in INTERACTIONS or event.item_id is None:
        return None
    if event.type == "interact" and event.given("event") in AGAINST:
        return None
    weight = event.given("weight")
    return 1.0 if weight is None else float(weight)
