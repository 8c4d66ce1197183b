"""What was shown in a label window, and what came of it within the attribution time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nextedge.config import RankerConfig
from nextedge.graph.csr import Graph, build_graph
from nextedge.schema import CANDIDATE_ID, ITEM_ID
from nextedge.steps.entities import ACTIONS
from nextedge.steps.windows import History
from nextedge.types import BoolArray, Relation

_DAY = 86_400_000_000
_PEOPLE = ("accept", "connect")
_ITEMS = ("click", "accept", "like", "purchase", "connect")


@dataclass(frozen=True, eq=False)
class Shown:
    """Impressions of one label window by outcome, each query × candidate.

    Attributes:
        taken: acted on in favour within the attribution time.
        refused: dismissed, blocked, or left without an action for the attribution time.
        open: without an action so far, and shown too lately to call that a refusal.
    """

    taken: Graph
    refused: Graph
    open: Graph


def shown_between(
    history: History, relation: Relation, start: int | None, end: int | None, settings: RankerConfig
) -> Shown | None:
    """What was shown after ``start`` and up to ``end`` (microseconds), as known at ``end``.

    Nothing later than ``end`` is looked at, so that a label window tells nothing of the next.
    Only the last ``impression_window_days`` before the end count. None without times or
    impressions.
    """
    directory = history.directory / "impressions" / (
        CANDIDATE_ID if relation.self_typed else ITEM_ID
    )  # fmt: skip
    if start is None or end is None or not directory.exists():
        return None
    source, target, time, acted, action = (
        np.load(directory / f"{name}.npy", mmap_mode="r")
        for name in ("source", "target", "time", "acted", "action")
    )
    begin = max(start, end - int(settings.impression_window_days * _DAY))
    kept = (time > begin) & (time <= end)
    source, target, time = source[kept], target[kept], np.asarray(time[kept])
    acted = np.where(acted[kept] > 0, acted[kept], time)
    patience = int(settings.attribution_days * _DAY)
    answered = (action[kept] != -1) & (acted <= end) & (acted - time <= patience)
    favours = [ACTIONS.index(name) for name in (_PEOPLE if relation.self_typed else _ITEMS)]
    taken = answered & np.isin(action[kept], favours)
    is_open = ~answered & (time > end - patience)
    users = len(history.entities.users)
    targets = users if relation.self_typed else len(history.entities.items)

    def graph(mask: BoolArray) -> Graph:
        return build_graph(source[mask], target[mask], users, targets)

    return Shown(graph(taken), graph(~taken & ~is_open), graph(is_open))
