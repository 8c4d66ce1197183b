"""How history is cut: which pairs the graph of each window holds, and which are its labels.

``time`` cuts all relations at the same instants, so that no window sees anything later. ``last``
takes each query's latest pairs as labels. ``random`` takes seeded shares of the pairs, for data
without times. All label windows but the last train the ranker; the last chooses and calibrates
it; the evaluation window does neither.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from nextedge.build.time_split.pairs import Pairs
from nextedge.config import SplitConfig
from nextedge.data.order import kth
from nextedge.data.timestamps import ORDER_ONLY_BEFORE
from nextedge.storage.arrays import mapped
from nextedge.types import BoolArray, IntArray

LABEL_WINDOWS = 4
SHARED_FROM = 2_000_000
"""Pairs from which random label windows share one graph, so that models are fitted to it once."""
_FIRST_TIMES = 10_000
"""Times to count distinct values of before all are sorted."""
_FEWEST_TIMES = 20
_UNTIMED_SHARE = 0.01
Method = Literal["time", "last", "random"]


@dataclass(frozen=True)
class Window:
    """One cut of history.

    Attributes:
        name: ``label_0`` … ``label_3``, ``evaluation``, ``common`` or ``cold_start``.
        as_of: microseconds; later records of any relation are not in the graph. None: no cut
            by time.
        graph: bool[pairs], the pairs of the predicted relation in the graph.
        labels: bool[pairs], the pairs that became edges in the window.
    """

    name: str
    as_of: int | None
    graph: BoolArray
    labels: BoolArray


@dataclass(frozen=True, eq=False)
class TimeSplit:
    """The windows of one relation.

    Attributes:
        method, reason: how history is cut, and why so.
        windows: the label windows in order, then the evaluation window.
    """

    method: Method
    reason: str
    windows: list[Window]

    @classmethod
    def of(cls, pairs: Pairs, split: SplitConfig, *, divide: bool) -> TimeSplit:
        """Cut pairs; ``divide`` as of ``label_windows``."""
        method, reason = choose_method(split, pairs.first)
        windows = label_windows(split, method, pairs.source, pairs.first, divide=divide)
        return cls(method, reason, windows)

    @property
    def label_windows(self) -> list[Window]:
        """The windows that train the rankers, in order."""
        return self.windows[:-1]

    @property
    def evaluation(self) -> Window:
        """The window that judges the whole pipeline."""
        return self.windows[-1]

    def common(self) -> Window:
        """The pairs that are no label of any window: what a model may learn for all of them."""
        graph = np.logical_and.reduce([window.graph for window in self.windows])
        # The earliest cut: a later record of the other relation might tell of a label.
        return Window("common", self.windows[0].as_of, graph, np.zeros_like(graph))

    def save(self, directory: Path) -> None:
        """Write ``windows.json`` and one array a mask into an existing folder."""
        files: dict[int, str] = {}
        about = []
        for window in self.windows:
            # One file for a shared mask: steps tell by ``is`` that windows share a graph.
            if id(window.graph) not in files:
                files[id(window.graph)] = f"{window.name}-graph.npy"
                np.save(directory / files[id(window.graph)], window.graph)
            np.save(directory / f"{window.name}-labels.npy", window.labels)
            graph = files[id(window.graph)]
            about.append({"name": window.name, "as_of": window.as_of, "graph": graph})
        text = {"method": self.method, "reason": self.reason, "windows": about}
        (directory / "windows.json").write_text(json.dumps(text, indent=1))

    @classmethod
    def load(cls, directory: Path) -> TimeSplit:
        """Memory-map what ``save`` wrote; windows that share a graph share its mask."""
        about = json.loads((directory / "windows.json").read_text())
        graphs = {name: mapped(directory / name) for name in {w["graph"] for w in about["windows"]}}
        windows = [
            Window(
                window["name"],
                window["as_of"],
                graphs[window["graph"]],
                mapped(directory / f"{window['name']}-labels.npy"),
            )
            for window in about["windows"]
        ]
        return cls(about["method"], about["reason"], windows)


def choose_method(split: SplitConfig, first: IntArray) -> tuple[Method, str]:
    """The split method and the reason for it, by the time of each pair's first record (0 = none)."""
    if split.method != "auto":
        return split.method, "as configured (split.method)"
    if not len(first) or (first == 0).mean() > _UNTIMED_SHARE:
        return "random", "records carry no timestamps: pairs are held back at random, by seed"
    if first.max() < ORDER_ONLY_BEFORE:
        return "last", "times are places in an order, not dates: each query's latest are held back"
    # The first part mostly decides, which saves a sort of all times.
    if all(len(np.unique(part)) < _FEWEST_TIMES for part in (first[:_FIRST_TIMES], first)):
        return "random", "records carry fewer than 20 distinct times: held back at random, by seed"
    return "time", "records carry timestamps: cut at instants"


def label_windows(
    split: SplitConfig, method: Method, query: np.ndarray, first: IntArray, *, divide: bool = False
) -> list[Window]:
    """The label windows in order, then the evaluation window.

    Args:
        query: int[pairs], the query of each pair (for ``last``).
        first: int64[pairs], microseconds of each pair's first record.
        divide: let random windows share one graph and divide the queries between them, where
            pairs are many. Only where a pair is the label of one query alone.
    """
    if method == "random" and divide and len(first) >= SHARED_FROM:
        return _by_query(split, query)
    if method == "time":
        return _by_time(split, first)
    place = _rank_from_end(query, first) if method == "last" else _shuffled(split, len(first))
    return _by_place(split, method, place)


def _by_time(split: SplitConfig, first: IntArray) -> list[Window]:
    end = 1.0 - split.evaluation_share
    bounds = [end - split.label_share * (LABEL_WINDOWS - number) for number in range(LABEL_WINDOWS)]
    # Large shares would leave the first graph without edges: it keeps at least 0.3 of the pairs.
    bounds = [max(bound, 0.3 + 0.01 * number) for number, bound in enumerate(bounds)] + [end, 1.0]
    cuts = [kth(first, int(bound * (len(first) - 1))) for bound in bounds]
    names = [f"label_{number}" for number in range(LABEL_WINDOWS)] + ["evaluation"]
    return [
        Window(name, int(low), first <= low, (first > low) & (first <= high))
        for name, low, high in zip(names, cuts[:-1], cuts[1:], strict=True)
    ]


def _by_place(split: SplitConfig, method: Method, place: np.ndarray) -> list[Window]:
    """Windows by each pair's rank from the end (``last``), or its share in a shuffle (``random``)."""
    windows = []
    for number in range(LABEL_WINDOWS):
        if method == "last":  # rank 0 is the label of the evaluation
            rank = LABEL_WINDOWS - number
            windows.append(Window(f"label_{number}", None, place > rank, place == rank))
        else:
            low = split.evaluation_share + split.label_share * number
            labels = (place >= low) & (place < low + split.label_share)
            graph = (place >= split.evaluation_share) & ~labels
            windows.append(Window(f"label_{number}", None, graph, labels))
    labels = place == 0 if method == "last" else place < split.evaluation_share
    return [*windows, Window("evaluation", None, ~labels, labels)]


def _by_query(split: SplitConfig, query: np.ndarray) -> list[Window]:
    """One share of labels, whose queries are divided between the label windows."""
    place = _shuffled(split, len(query))
    evaluated = place < split.evaluation_share
    labels = ~evaluated & (place < split.evaluation_share + split.label_share)
    graph = ~evaluated & ~labels
    # A stream of its own: that of the shuffle would tie the groups to the labels.
    number = np.random.default_rng([split.seed, 1]).permutation(int(query.max()) + 1)
    group = number[query] % LABEL_WINDOWS
    windows = [
        Window(f"label_{number}", None, graph, labels & (group == number))
        for number in range(LABEL_WINDOWS)
    ]
    return [*windows, Window("evaluation", None, ~evaluated, evaluated)]


def _shuffled(split: SplitConfig, pairs: int) -> np.ndarray:
    return (np.random.default_rng(split.seed).permutation(pairs) + 0.5) / max(pairs, 1)


def _rank_from_end(query: np.ndarray, first: IntArray) -> np.ndarray:
    """int64[pairs]: 0 for a query's latest pair, 1 for the one before, …"""
    order = np.lexsort((-first, query))
    ordered = query[order]
    rank = np.empty(len(query), np.int64)
    rank[order] = np.arange(len(query)) - np.searchsorted(ordered, ordered)
    return rank
