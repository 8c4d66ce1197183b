"""What was shown in a label window, and what came of it within the attribution time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from nextedge.build.time_split.windows import History
from nextedge.config import RankerConfig
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.rankers.position_bias import PositionBias
from nextedge.schema import ACTIONS, CANDIDATE_ID, FAVOURS, ITEM_ID
from nextedge.types import BoolArray, FloatArray, IndexArray, IntArray, Relation

_DAY = 86_400_000_000
_REQUEST = ACTIONS.index("request")
_OUTCOMES = ("taken", "refused", "open")


@dataclass(frozen=True, eq=False)
class Impressions:
    """The impressions of one relation in positions of the entities, rows in order of arrival.

    Attributes:
        source, target: int32[n], to whom what was shown.
        time, acted, arrived: int64[n], microseconds; ``acted`` is ``time`` where it is not given.
        action: int32[n], place in ``schema.ACTIONS``; -1 for none, -2 for another.
        position: int32[n] in the list, -1 where it is not given.
        propensity: float32[n], chance with which it was shown there, NaN where it is not given.
    """

    source: IndexArray
    target: IndexArray
    time: IntArray
    acted: IntArray
    arrived: IntArray
    action: IndexArray
    position: IndexArray
    propensity: FloatArray

    @classmethod
    def load(cls, history: History, relation: Relation) -> Impressions | None:
        """Memory-map what the entities step kept; None where nothing was shown."""
        directory = (
            history.directory / "impressions" / (CANDIDATE_ID if relation.self_typed else ITEM_ID)
        )
        if not directory.exists():
            return None
        found = cls(
            *(np.load(directory / f"{part.name}.npy", mmap_mode="r") for part in fields(cls))
        )
        return replace(found, acted=np.where(found.acted > 0, found.acted, found.time))

    def keep(self, mask: BoolArray) -> Impressions:
        """Only the rows where the mask holds."""
        return Impressions(*(getattr(self, part.name)[mask] for part in fields(self)))


@dataclass(frozen=True, eq=False)
class ImpressionOutcomes:
    """Impressions of one label window by outcome, each query × candidate.

    Attributes:
        taken: acted on in favour within the attribution time; the weight is what the action is
            worth, over the chance that its position was looked at.
        refused: dismissed, blocked, or left without an action for the attribution time; the
            weight says for how many plain refusals it counts.
        open: without an action so far, and shown too lately to call that a refusal.
        bias: how often each position is looked at, or None where the log does not tell.
    """

    taken: Graph
    refused: Graph
    open: Graph
    bias: PositionBias | None = None

    def save(self, directory: Path) -> None:
        """Write the graphs, without the bias, into an existing folder."""
        for name in _OUTCOMES:
            (directory / name).mkdir(exist_ok=True)
            getattr(self, name).save(directory / name)

    @classmethod
    def load(cls, directory: Path) -> ImpressionOutcomes:
        """Memory-map what ``save`` wrote."""
        taken, refused, is_open = (Graph.load(directory / name) for name in _OUTCOMES)
        return cls(taken, refused, is_open)


def shown_between(
    history: History, relation: Relation, start: int | None, end: int | None, settings: RankerConfig
) -> ImpressionOutcomes | None:
    """What was shown after ``start`` and up to ``end`` (microseconds), as known at ``end``.

    Nothing later than ``end`` is looked at, so that a label window tells nothing of the next.
    Only the last ``impression_window_days`` before the end count. None without times or
    impressions.
    """
    shown = Impressions.load(history, relation)
    if start is None or end is None or shown is None:
        return None
    begin = max(start, end - int(settings.impression_window_days * _DAY))
    shown = shown.keep((shown.time > begin) & (shown.time <= end) & (shown.arrived <= end))
    answered, is_open = outcomes(shown, end, settings)
    worth = action_worth(shown.action, settings)
    favours = [ACTIONS.index(name) for name in favours_of(relation)]
    taken = answered & np.isin(shown.action, favours) & (worth > 0)
    refused = ~taken & ~is_open & (worth > 0)
    bias = None
    if settings.position_bias:
        decided = taken | refused
        bias = PositionBias.fit(shown.position[decided], shown.target[decided], taken[decided])
    if bias is not None:
        worth = worth * np.where(taken, bias.inverse(shown.position), 1.0)
    users = len(history.entities.users)
    targets = users if relation.self_typed else len(history.entities.items)

    def graph(mask: BoolArray) -> Graph:
        rows = _strongest(shown.source[mask], shown.target[mask], worth[mask])
        return build_graph(rows[0], rows[1], users, targets, rows[2])

    return ImpressionOutcomes(graph(taken), graph(refused), graph(is_open), bias)


def favours_of(relation: Relation) -> tuple[str, ...]:
    """The actions that take what was shown."""
    return FAVOURS["people" if relation.self_typed else "items"]


def outcomes(shown: Impressions, end: int, settings: RankerConfig) -> tuple[BoolArray, BoolArray]:
    """bool[n], bool[n]: which were answered in time as known at ``end``, and which still may be.

    A request is wanted by the one and not yet answered by the other: it stays open.
    """
    patience = int(settings.attribution_days * _DAY)
    answered = (shown.action != -1) & (shown.acted <= end)
    answered &= shown.acted - shown.time <= patience
    asked = answered & (shown.action == _REQUEST)
    answered &= ~asked
    return answered, ~answered & (asked | (shown.time > end - patience))


def action_worth(action: IndexArray, settings: RankerConfig) -> FloatArray:
    """float32[n]: what each action counts; 1 where the settings say nothing of it."""
    worth = np.ones(len(ACTIONS), np.float32)
    for name, value in settings.action_weights.items():
        worth[ACTIONS.index(name)] = value
    return np.where(action >= 0, worth[np.maximum(action, 0)], np.float32(1.0))


def _strongest(
    source: IndexArray, target: IndexArray, worth: FloatArray
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """One row a pair: the one that is worth most."""
    order = np.lexsort((-worth, target, source))
    source, target, worth = source[order], target[order], worth[order]
    first = np.ones(len(order), bool)
    first[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
    return source[first], target[first], worth[first]
