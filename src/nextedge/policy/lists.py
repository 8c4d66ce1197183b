"""The lists of a batch of requests, as the rules of the policy change them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nextedge.errors import ConfigError, nearest
from nextedge.graph.attributes import Category
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.ranking.pipeline import blank_of
from nextedge.types import BoolArray, Candidates, IndexArray, Requests

PROPENSITY = "propensity"
"""Column: the chance with which the row is at its rank; 1 where nothing was drawn."""
PROMOTED = "promoted"
"""Column: 1 where the row is at its rank because it is promoted."""
_PART = 4096


@dataclass(frozen=True, eq=False)
class Lists:
    """The candidates of each query between two rules.

    Attributes:
        requests: the batch.
        eligible: bool[candidates], whether a candidate passes the filters.
        excluded: per query the positions that it must not be recommended, ascending.
        ranked: the candidates that may be recommended, best first, with a ``score``.
        chosen: at most k rows of each query, which are answered; from the rule ``caps`` on.
    """

    requests: Requests
    eligible: BoolArray
    excluded: list[IndexArray]
    ranked: Candidates
    chosen: Candidates

    def allowed(self, candidates: Candidates) -> BoolArray:
        """bool[R]: whether the row's candidate is eligible and not excluded for its query."""
        excluded = np.zeros(len(candidates), bool)
        for rows, positions in zip(candidates.rows(), self.excluded, strict=True):
            if len(positions):
                candidate = candidates.candidate[rows]
                # A candidate beyond the last position is compared with it, and differs.
                at = np.minimum(np.searchsorted(positions, candidate), len(positions) - 1)
                excluded[rows] = positions[at] == candidate
        return self.eligible[candidates.candidate] & ~excluded

    def only(self, eligible: BoolArray) -> Lists:
        """Leave all other candidates out, also of what later rules add.

        Args:
            eligible: bool[candidates].
        """
        return replace(
            self,
            eligible=self.eligible & eligible,
            ranked=self.ranked.keep(eligible[self.ranked.candidate]),
            chosen=self.chosen.keep(eligible[self.chosen.candidate]),
        )


def popular(scope: Scope, eligible: BoolArray) -> Iterator[int]:
    """The eligible candidates, those with most edges first; computed as far as the caller reads."""
    order = _by_degree(scope)
    # In parts: callers read few, and a mask over all candidates would cost each request.
    for start in range(0, len(order), _PART):
        part = order[start : start + _PART]
        yield from part[eligible[part]].tolist()


@cached_per_snapshot
def _by_degree(scope: Scope) -> IndexArray:
    """int32[candidates]: positions, those with most edges first."""
    degree = scope.candidate_degree
    # Ties by position, so that every process backfills alike.
    return np.lexsort((np.arange(len(degree)), -degree)).astype(np.int32)


def category_codes(scope: Scope, name: str) -> IndexArray:
    """int32[candidates]: codes of a category column; raises ConfigError on any other."""
    columns = scope.candidate_attributes.columns
    column = columns.get(name)
    if isinstance(column, Category):
        return column.codes
    valid = [name for name, column in columns.items() if isinstance(column, Category)]
    raise ConfigError(
        f"policy.max_per names {name!r}, which is no category column of the candidates; "
        f"{nearest(name, valid)}"
    )


def appended(lists: Candidates, extra: Mapping[int, list[int]]) -> Candidates:
    """Rows of each query followed by its extra candidates: score 0, other columns empty."""
    ends = lists.indptr[1:]
    where = np.concatenate(
        [np.full(len(c), ends[row]) for row, c in extra.items()] or [np.zeros(0, np.int64)]
    )
    added = np.concatenate(
        [np.asarray(c, np.int32) for c in extra.values()] or [np.zeros(0, np.int32)]
    )
    where = where.astype(np.int64)
    grown = np.zeros(len(lists.indptr), np.int64)
    for row, candidates in extra.items():
        grown[row + 1] = len(candidates)
    columns = {}
    for name, values in lists.columns.items():
        # An appended candidate was not drawn: its chance is 1.
        blank = 1.0 if name == PROPENSITY else blank_of(name, values)
        columns[name] = np.insert(values, where, np.full(len(where), blank, values.dtype))
    return Candidates(
        lists.indptr + np.cumsum(grown), np.insert(lists.candidate, where, added), columns
    )
