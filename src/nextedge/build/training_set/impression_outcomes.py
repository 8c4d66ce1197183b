"""The impressions of a label window by outcome within the attribution time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from nextedge.build.time_split.history import History
from nextedge.config import RankerConfig
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.rankers.position_bias import PositionBias
from nextedge.schema import ACTIONS, CANDIDATE_ID, FAVOURS, ITEM_ID
from nextedge.storage.arrays import mapped
from nextedge.types import (
    MICROSECONDS_PER_DAY,
    BoolArray,
    FloatArray,
    IndexArray,
    IntArray,
    Relation,
)

_REQUEST = ACTIONS.index("request")
_OUTCOMES = ("taken", "refused", "open")


@dataclass(frozen=True, eq=False)
class Impressions:
    """The impressions of one relation, rows in order of arrival.

    Attributes:
        source, target: int32[n] positions of the query and of the candidate.
        time, acted, arrived: int64[n], microseconds; ``acted`` is ``time`` where the log has none.
        action: int32[n] index into ``schema.ACTIONS``; -1 for none, -2 for another.
        position: int32[n] in the list, -1 where unknown.
        propensity: float32[n], chance of this candidate at this position, NaN where unknown.
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
        """Memory-map the arrays of the entities step; None where there are no impressions."""
        column = CANDIDATE_ID if relation.self_typed else ITEM_ID
        directory = history.directory / "impressions" / column
        if not directory.exists():
            return None
        rows = cls(*(mapped(directory / f"{part.name}.npy") for part in fields(cls)))
        return replace(rows, acted=np.where(rows.acted > 0, rows.acted, rows.time))

    def keep(self, mask: BoolArray) -> Impressions:
        """Only the rows where the mask holds."""
        return Impressions(*(getattr(self, part.name)[mask] for part in fields(self)))


@dataclass(frozen=True, eq=False)
class ImpressionOutcomes:
    """Impressions of one label window by outcome, each query × candidate.

    Attributes:
        taken: a favourable action within the attribution time; the weight is the action's worth
            over the examination of its position.
        refused: a dismissal, a block, or no action for the attribution time; the weight says for
            how many plain refusals it counts.
        open: no action so far, and too late in the window to count as a refusal.
        bias: examination of each position, or None where the log cannot tell.
    """

    taken: Graph
    refused: Graph
    open: Graph
    bias: PositionBias | None = None

    def save(self, directory: Path) -> None:
        """Write the graphs, without the bias, into a folder."""
        for name in _OUTCOMES:
            (directory / name).mkdir(parents=True, exist_ok=True)
            getattr(self, name).save(directory / name)

    @classmethod
    def load(cls, directory: Path) -> ImpressionOutcomes:
        """Memory-map what ``save`` wrote."""
        taken, refused, still_open = (Graph.load(directory / name) for name in _OUTCOMES)
        return cls(taken, refused, still_open)


def outcomes_between(
    history: History, relation: Relation, start: int | None, end: int | None, settings: RankerConfig
) -> ImpressionOutcomes | None:
    """Outcomes of the impressions after ``start`` and up to ``end`` (microseconds), as of ``end``.

    Only the last ``impression_window_days`` before the end count. None without times or
    impressions.
    """
    rows = Impressions.load(history, relation)
    if start is None or end is None or rows is None:
        return None
    begin = max(start, end - int(settings.impression_window_days * MICROSECONDS_PER_DAY))
    # A row that arrives after the end would tell this window's labels something of the next.
    rows = rows.keep((rows.time > begin) & (rows.time <= end) & (rows.arrived <= end))
    taken, is_open = taken_and_open(rows, relation, end, settings)
    worth = action_worth(rows.action, settings)
    # An action of weight 0 is no label.
    taken &= worth > 0
    refused = ~taken & ~is_open & (worth > 0)
    bias = None
    if settings.position_bias:
        decided = taken | refused
        bias = PositionBias.fit(rows.position[decided], rows.target[decided], taken[decided])
    if bias is not None:
        # Low ranks are seen less often, so that an acceptance there counts for more.
        worth = worth * np.where(taken, bias.inverse(rows.position), 1.0)
    users = len(history.entities.users)
    targets = users if relation.self_typed else len(history.entities.items)

    def graph(mask: BoolArray) -> Graph:
        source, target, weight = _strongest(rows.source[mask], rows.target[mask], worth[mask])
        return build_graph(source, target, users, targets, weight)

    return ImpressionOutcomes(graph(taken), graph(refused), graph(is_open), bias)


def taken_and_open(
    rows: Impressions, relation: Relation, end: int, settings: RankerConfig
) -> tuple[BoolArray, BoolArray]:
    """bool[n], bool[n]: impressions with a favourable action in time, and those still open at ``end``.

    A request stays open: one side wants the connection, and the other has not answered yet.
    """
    patience = int(settings.attribution_days * MICROSECONDS_PER_DAY)
    # A later answer belongs to the next window, and would leak from it.
    answered = (rows.action != -1) & (rows.acted <= end) & (rows.acted - rows.time <= patience)
    requested = answered & (rows.action == _REQUEST)
    answered &= ~requested
    favourable = FAVOURS["people" if relation.self_typed else "items"]
    taken = answered & np.isin(rows.action, [ACTIONS.index(name) for name in favourable])
    return taken, ~answered & (requested | (rows.time > end - patience))


def action_worth(action: IndexArray, settings: RankerConfig) -> FloatArray:
    """float32[n]: weight of each action, 1 where the settings have none."""
    worth = np.ones(len(ACTIONS), np.float32)
    for name, value in settings.action_weights.items():
        worth[ACTIONS.index(name)] = value
    # Both sides of where are computed: -1 and -2 would read from the end.
    return np.where(action >= 0, worth[np.maximum(action, 0)], np.float32(1.0))


def _strongest(
    source: IndexArray, target: IndexArray, worth: FloatArray
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """One row a pair: the one with the highest worth."""
    # The graph would add up the weights of a pair's impressions.
    order = np.lexsort((-worth, target, source))
    source, target, worth = source[order], target[order], worth[order]
    first = np.ones(len(order), bool)
    first[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
    return source[first], target[first], worth[first]
