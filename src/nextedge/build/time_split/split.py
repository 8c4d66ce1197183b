"""How history is cut: which pairs are in the graph of a window, and which are its labels.

``time`` cuts all relations at the same instants, so that nothing later is seen. ``last``
holds back each query's latest pairs. ``random`` holds back seeded shares of pairs, for data
without times. Every label window but the last trains the ranker; the last chooses and
calibrates it; the evaluation window is touched by neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nextedge.config import SplitConfig
from nextedge.data.order import kth
from nextedge.data.timestamps import ORDER_ONLY_BEFORE
from nextedge.types import BoolArray, IntArray

LABEL_WINDOWS = 4
_GLANCE = 10_000
"""Pairs that are looked at before all are sorted."""
SHARED_FROM = 2_000_000
"""Pairs from which random label windows share one graph, so that models are fitted to it once."""


@dataclass(frozen=True)
class Window:
    """One cut of history.

    Attributes:
        name: ``label_0`` … ``label_3``, ``evaluation`` or ``serve``.
        as_of: microseconds; records of any relation later than this are not in the graph
            (None: no cut by time).
        graph: bool[pairs], pairs of the predicted relation in the graph.
        labels: bool[pairs], pairs that became edges in the window.
    """

    name: str
    as_of: int | None
    graph: BoolArray
    labels: BoolArray


Method = Literal["time", "last", "random"]


def choose_method(split: SplitConfig, first: IntArray) -> tuple[Method, str]:
    """The split method, and why, for pairs first seen at the given times (0 = no time)."""
    if split.method != "auto":
        return split.method, "as configured (split.method)"
    if not len(first) or (first == 0).mean() > 0.01:
        return "random", "records carry no timestamps: pairs are held back at random, by seed"
    if first.max() < ORDER_ONLY_BEFORE:
        return "last", "times are places in an order, not dates: each query's latest are held back"
    if len(np.unique(first[:_GLANCE])) < 20 and len(np.unique(first)) < 20:
        return "random", "records carry fewer than 20 distinct times: held back at random, by seed"
    return "time", "records carry timestamps: cut at instants"


def label_windows(
    split: SplitConfig, method: Method, query: np.ndarray, first: IntArray, *, divide: bool = False
) -> list[Window]:
    """The label windows in order, then the evaluation window.

    Args:
        query: int[pairs], whose pair it is (for ``last``).
        first: int64[pairs], microseconds of each pair's first record.
        divide: let random windows share one graph and divide the queries between them, where
            pairs are many. Only where a pair is the label of one query alone.
    """
    if method == "random" and divide and len(first) >= SHARED_FROM:
        return _by_query(split, query)
    if method == "time":
        return _by_time(split, first)
    place = _place_from_end(query, first) if method == "last" else _shuffled(split, len(first))
    return _by_place(split, method, place)


def _by_time(split: SplitConfig, first: IntArray) -> list[Window]:
    end = 1.0 - split.evaluation_share
    bounds = [end - split.label_share * (LABEL_WINDOWS - place) for place in range(LABEL_WINDOWS)]
    bounds = [max(bound, 0.3 + 0.01 * place) for place, bound in enumerate(bounds)] + [end, 1.0]
    cuts = [kth(first, int(bound * (len(first) - 1))) for bound in bounds]
    names = [f"label_{place}" for place in range(LABEL_WINDOWS)] + ["evaluation"]
    return [
        Window(name, int(low), first <= low, (first > low) & (first <= high))
        for name, low, high in zip(names, cuts[:-1], cuts[1:], strict=True)
    ]


def _by_place(split: SplitConfig, method: Method, place: np.ndarray) -> list[Window]:
    windows = []
    for number in range(LABEL_WINDOWS):
        if method == "last":  # place 0 is held for the evaluation
            back = LABEL_WINDOWS - number
            windows.append(Window(f"label_{number}", None, place > back, place == back))
        else:
            low = split.evaluation_share + split.label_share * number
            held = (place >= low) & (place < low + split.label_share)
            rest = (place >= split.evaluation_share) & ~held
            windows.append(Window(f"label_{number}", None, rest, held))
    held = place == 0 if method == "last" else place < split.evaluation_share
    return [*windows, Window("evaluation", None, ~held, held)]


def _by_query(split: SplitConfig, query: np.ndarray) -> list[Window]:
    """One held-back share, whose queries are divided between the label windows."""
    place = _shuffled(split, len(query))
    evaluated = place < split.evaluation_share
    held = ~evaluated & (place < split.evaluation_share + split.label_share)
    rest = ~evaluated & ~held
    number = np.random.default_rng([split.seed, 1]).permutation(int(query.max()) + 1)
    group = number[query] % LABEL_WINDOWS
    windows = [
        Window(f"label_{place}", None, rest, held & (group == place))
        for place in range(LABEL_WINDOWS)
    ]
    return [*windows, Window("evaluation", None, ~evaluated, evaluated)]


def _shuffled(split: SplitConfig, pairs: int) -> np.ndarray:
    return (np.random.default_rng(split.seed).permutation(pairs) + 0.5) / max(pairs, 1)


def _place_from_end(query: np.ndarray, first: IntArray) -> np.ndarray:
    order = np.lexsort((-first, query))
    ordered = query[order]
    start = (
        np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        if len(query)
        else np.zeros(0, int)
    )
    size = np.diff(np.concatenate((start, [len(query)])))
    place = np.empty(len(query), np.int64)
    place[order] = np.arange(len(query)) - np.repeat(start, size)
    return place
