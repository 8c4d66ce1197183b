"""NextEdge recommends the next edge in a graph: people to people, and people to items.

>>> import nextedge
>>> "Recommender" in nextedge.__all__
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextedge.config import Config
    from nextedge.errors import NextEdgeError
    from nextedge.events.event import Event
    from nextedge.recommender import Recommender
    from nextedge.serving.messages import (
        Recommendation,
        RecommendationRequest,
        RecommendationResponse,
    )

__version__ = "0.1.0"
_HOMES = {
    "Config": "nextedge.config",
    "Event": "nextedge.events.event",
    "NextEdgeError": "nextedge.errors",
    "Recommendation": "nextedge.serving.messages",
    "RecommendationRequest": "nextedge.serving.messages",
    "RecommendationResponse": "nextedge.serving.messages",
    "Recommender": "nextedge.recommender",
}
_FORMER_NAMES = {"Answer": "RecommendationResponse", "Question": "RecommendationRequest"}
"""Names of before that go on working."""
__all__ = [
    "Config",
    "Event",
    "NextEdgeError",
    "Recommendation",
    "RecommendationRequest",
    "RecommendationResponse",
    "Recommender",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the package itself stays light."""
    name = _FORMER_NAMES.get(name, name)
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nextedge' has no attribute {name!r}")
