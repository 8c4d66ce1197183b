"""Eligible candidates: recommendable in the release, and passing the request's filters."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

from nextedge.errors import InputError, nearest
from nextedge.graph.attributes import Attributes, Category, Number, Tags
from nextedge.graph.propagate import SparseRows
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.types import BoolArray, Filter, Requests

_CACHED_MASKS = 64
"""Masks of filters that a process caches for a snapshot, by least recent use."""


def eligible(scope: Scope, requests: Requests) -> BoolArray:
    """bool[candidates], read-only: whether a candidate is eligible.

    Raises:
        InputError: a filter names an unknown column, or a column of text or times.
    """
    if not requests.filters:
        return scope.recommendable
    return _masks(scope)(requests.filters)


def share_eligible(scope: Scope, requests: Requests) -> float:
    """Share of the recommendable candidates that pass the filters."""
    if not requests.filters:
        return 1.0
    # A release may have no recommendable candidate.
    return np.count_nonzero(eligible(scope, requests)) / max(_count(scope), 1)


@cached_per_snapshot
def _count(scope: Scope) -> int:
    return int(np.count_nonzero(scope.recommendable))


@cached_per_snapshot
def _masks(scope: Scope) -> Callable[[tuple[Filter, ...]], BoolArray]:
    # The cache belongs to the snapshot, so it goes with the release that it describes.
    return lru_cache(_CACHED_MASKS)(partial(_mask, scope))


def _mask(scope: Scope, filters: tuple[Filter, ...]) -> BoolArray:
    mask = np.array(scope.recommendable)  # a copy: all requests read the scope's
    for condition in filters:
        mask &= _passing(scope.candidate_attributes, condition)
    return mask


def _passing(attributes: Attributes, wanted: Filter) -> BoolArray:
    column = attributes.columns.get(wanted.column)
    if isinstance(column, Category | Tags):
        return _with_values(column, wanted)
    if isinstance(column, Number):
        passing = np.zeros(attributes.rows, bool)
        for value in wanted.values:
            low, high = _range(wanted.column, value)
            passing |= (column.values >= low) & (column.values <= high)
        return passing | (np.isnan(column.values) if wanted.or_missing else False)
    names = [n for n, c in attributes.columns.items() if isinstance(c, Category | Tags | Number)]
    raise InputError(f"filter {wanted.column!r}: no such column; {nearest(wanted.column, names)}")


def _with_values(column: Category | Tags, wanted: Filter) -> BoolArray:
    sets: SparseRows = column.as_sets()
    size = np.diff(sets.indptr)
    chosen = np.zeros(max(sets.columns, 1), bool)
    codes = {str(value): code for code, value in enumerate(column.values.to_pylist())}
    chosen[[codes[value] for value in wanted.values if value in codes]] = True
    row = np.repeat(np.arange(len(size)), size)
    passing = np.zeros(len(size), bool)
    passing[row[chosen[sets.indices]]] = True
    return passing | (size == 0) if wanted.or_missing else passing


def _range(column: str, text: str) -> tuple[np.float32, np.float32]:
    # Bounds are inclusive, and float32 as the column: 0.1 must equal a stored 0.1.
    words = {"true": "1", "false": "0"}
    low, dots, high = words.get(text.lower(), text).partition("..")
    try:
        if not dots:
            return np.float32(low), np.float32(low)
        return np.float32(low or "-inf"), np.float32(high or "inf")
    except ValueError:
        raise InputError(
            f"filter {column!r}: {text!r} is neither a number, true, false nor a range low..high"
        ) from None
