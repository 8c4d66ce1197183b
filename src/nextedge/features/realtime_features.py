"""Real-time features: recent counts of users and items, of the release and of later events.

``nextedge.features.counters`` declares all of them. A snapshot has the counts as of its instant; a
request adds those of later events (``Requests.live``).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nextedge.features.backfill import item_category
from nextedge.features.counters import (
    ACTIVITY,
    CONNECTIONS,
    LATEST,
    POPULARITY,
    TASTE,
    DecayedCounter,
)
from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.features.item_features import similar_to
from nextedge.graph.propagate import SparseRows, pair_products
from nextedge.graph.scope import Scope
from nextedge.types import CONNECTS, ENGAGES, FloatArray, IndexArray, IntArray

_HOUR = 3_600_000_000
_ITEMS, _READS = f"{LATEST.name}_items", "counters, live events"
_TASTE, _SHARE = "recent_category_taste", "recent_category_share"
_SIMILARITY, _QUIET = "recent_similarity", "query_quiet_hours"


def _decayed(name: str, what: str, counter: DecayedCounter) -> Feature:
    formula = f"ln(1 + {what} counted 2^(-age / {counter.half_life_days:g} days))"
    return Feature(name, formula, _READS, live=True)


def _people(scope: Scope) -> Iterator[Feature]:
    for span, counter in CONNECTIONS.items():
        if counter.name in scope.snapshot.counters:
            for side in ("query", "candidate"):
                yield _decayed(f"{side}_new_connections_{span}", "its connections", counter)


@feature_group("bursts", _people, (CONNECTS,), live=True)
def bursts(inputs: FeatureInput) -> Columns:
    """Recent connections of both people."""
    columns: Columns = {}
    for span, counter in CONNECTIONS.items():
        if counter.name in inputs.scope.snapshot.counters:
            columns[f"query_new_connections_{span}"] = _of_query(inputs, counter)
            columns[f"candidate_new_connections_{span}"] = _read(inputs, counter, inputs.candidate)
    return columns


def _recent(scope: Scope) -> Iterator[Feature]:
    if _ITEMS not in scope.snapshot.counters:
        return
    for span, counter in POPULARITY.items():
        yield _decayed(f"candidate_popularity_{span}", "its interactions", counter)
    for span, counter in ACTIVITY.items():
        yield _decayed(f"query_interactions_{span}", "its interactions", counter)
    yield Feature(_QUIET, "ln(1 + hours since the query's latest interaction)", _READS, live=True)


@feature_group("recent", _recent, (ENGAGES,), live=True)
def recent(inputs: FeatureInput) -> Columns:
    """Recent interactions of the query, and of all users with the candidate."""
    if _ITEMS not in inputs.scope.snapshot.counters:
        return {}
    columns: Columns = {}
    for span, counter in POPULARITY.items():
        columns[f"candidate_popularity_{span}"] = _read(inputs, counter, inputs.candidate)
    for span, counter in ACTIVITY.items():
        columns[f"query_interactions_{span}"] = _of_query(inputs, counter)
    newest = _latest(inputs)[1].max(axis=1, initial=0)
    hours = np.where(newest > 0, np.maximum(_clock(inputs) - newest, 0) / _HOUR, np.nan)
    columns[_QUIET] = inputs.by_row(np.log1p(hours)).astype(np.float32)
    return columns


def _similar(scope: Scope) -> Iterator[Feature]:
    if _ITEMS in scope.snapshot.counters:
        formula = f"Σ item_knn similarity to the query's latest {LATEST.n} interactions"
        yield Feature(_SIMILARITY, formula, _READS, live=True)


@feature_group("recent_similar", _similar, (ENGAGES,), live=True)
def recent_similar(inputs: FeatureInput) -> Columns:
    """Similarity of the candidate to the latest interactions of the query."""
    if _ITEMS not in inputs.scope.snapshot.counters:
        return {}
    items = _latest(inputs)[0]
    present = items >= 0
    indptr = np.concatenate(([0], np.cumsum(present.sum(axis=1))))
    ones = np.ones(int(indptr[-1]), np.float32)
    rows = SparseRows(indptr, items[present], ones, inputs.scope.graph.targets)
    return {_SIMILARITY: pair_products(rows, similar_to(inputs.scope), *inputs.pairs[1:])}


def _of_category(scope: Scope) -> Iterator[Feature]:
    if f"{TASTE.name}_indptr" in scope.snapshot.counters:
        yield _decayed(_TASTE, "the query's interactions with the item's category", TASTE)
        formula = f"share of the query's latest {LATEST.n} interactions with the item's category"
        yield Feature(_SHARE, formula, _READS, live=True)


@feature_group("recent_category", _of_category, (ENGAGES,), live=True)
def recent_category(inputs: FeatureInput) -> Columns:
    """Recent interactions of the query with the category of the candidate."""
    if f"{TASTE.name}_indptr" not in inputs.scope.snapshot.counters:
        return {}
    return _category_columns(inputs, _latest(inputs)[0])


def _clock(inputs: FeatureInput) -> int:
    """The time of the latest event, to which counters decay; not the hour of the request."""
    # So a release without new events gives the same numbers at any hour, a training window the same
    # as a request at its instant, and a build with some events the same as a release that receives
    # them later.
    live = inputs.requests.live
    return inputs.scope.snapshot.as_of if live is None else live.clock


def _read(inputs: FeatureInput, counter: DecayedCounter, positions: IndexArray) -> FloatArray:
    """float32[n]: ln(1 + value) of a counter at the clock, of known positions."""
    snapshot, live = inputs.scope.snapshot, inputs.requests.live
    value = snapshot.counters[counter.name][positions].astype(np.float64)
    if live is not None:
        # One reading of the clock: another thread may move it between two.
        clock = live.clock
        value *= counter.factor(snapshot.as_of, clock)
        value += live.counts(counter.name, positions, clock)
    # Subtracting a removed connection leaves a rounding error, which may be negative.
    return np.log1p(np.maximum(value, 0.0)).astype(np.float32)


def _of_query(inputs: FeatureInput, counter: DecayedCounter) -> FloatArray:
    query = inputs.requests.query
    value = np.where(query >= 0, _read(inputs, counter, np.maximum(query, 0)), np.nan)
    return inputs.by_row(value).astype(np.float32)


def _latest(inputs: FeatureInput) -> tuple[IndexArray, IntArray]:
    """int32[Q, n] items and int64[Q, n] times of the latest interactions; -1 and 0 after the last."""
    counters, live = inputs.scope.snapshot.counters, inputs.requests.live
    query = inputs.requests.query
    items = np.array(counters[f"{LATEST.name}_items"][np.maximum(query, 0)])
    times = np.array(counters[f"{LATEST.name}_times"][np.maximum(query, 0)])
    items[query < 0], times[query < 0] = -1, 0
    for row, user in enumerate(query.tolist() if live is not None else ()):
        recent_facts = live.latest(user) if user >= 0 and live is not None else ()
        if recent_facts:  # all of them are later than those of the release
            joined = [*recent_facts, *zip(times[row].tolist(), items[row].tolist(), strict=True)]
            times[row], items[row] = zip(*joined[: LATEST.n], strict=True)
    return items, times


def _category_columns(inputs: FeatureInput, items: IndexArray) -> Columns:
    """Decayed count and share of the query's interactions with the category of the candidate."""
    snapshot, live = inputs.scope.snapshot, inputs.requests.live
    category = item_category(inputs.scope.candidate_attributes)
    assert category is not None
    codes, clock = np.asarray(category.codes), _clock(inputs)
    indptr, taste_codes, values = (
        snapshot.counters[f"{TASTE.name}_{x}"] for x in ("indptr", "codes", "values")
    )
    taste, share = (np.zeros(len(inputs.candidates), np.float32) for _ in range(2))
    counted = np.zeros((2, len(category.values) + 1))  # the last is of items without a category
    faded = TASTE.factor(snapshot.as_of, clock)
    for row, (user, rows) in enumerate(
        zip(inputs.requests.query.tolist(), inputs.candidates.rows(), strict=True)
    ):
        if user < 0:
            continue
        counted[:] = 0
        part = slice(int(indptr[user]), int(indptr[user + 1]))
        counted[0, taste_codes[part]] = values[part] * faded
        for code, value in (live.taste(user, clock) if live is not None else {}).items():
            counted[0, code] += value
        latest = items[row][items[row] >= 0]
        # ``+=`` would count a category once, however many of the items have it.
        np.add.at(counted[1], codes[latest], 1.0 / LATEST.n)
        # Code -1 of items without a category reads the last column.
        counted[:, -1] = 0
        category_R = codes[inputs.candidate[rows]]
        taste[rows], share[rows] = np.log1p(counted[0, category_R]), counted[1, category_R]
    return {_TASTE: taste, _SHARE: share}
