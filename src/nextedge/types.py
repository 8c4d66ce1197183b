"""The ground types: relations, requests, candidates and events.

Shape legend, used over the whole project: Q queries, R candidate rows, N nodes, E edges,
F features, K results. Ragged data is an ``indptr`` of Q + 1 offsets into arrays of R rows.
Inside the engine users and items are dense int32 positions; the ids that tenants gave come
back at the doors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
IndexArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Identifier = int | str

UNKNOWN = -1
"""Position of a user or item that the release does not know."""

MICROSECONDS_PER_DAY = 86_400_000_000

MAX_LIMIT = 500
"""Recommendations that one request may ask for."""
MOST_SHOWN = 2_000
"""Candidates that one request may leave out, and that the pages of one list may show together."""
MOST_FILTERS, MOST_FILTER_VALUES = 16, 100
"""Columns that one request may filter by, and values of each."""


@dataclass(frozen=True, slots=True)
class Relation:
    """What an edge means: ``source —name→ target``.

    The machinery depends on these properties, never on the words user and item:
    ``self_typed`` relations leave the query itself out, ``symmetric`` ones are mirrored.
    """

    source: str
    name: str
    target: str
    symmetric: bool = False

    @property
    def self_typed(self) -> bool:
        """Whether both ends are of one kind, so that a query could be its own candidate."""
        return self.source == self.target


CONNECTS = Relation("user", "connects", "user", symmetric=True)
FOLLOWS = Relation("user", "connects", "user", symmetric=False)
ENGAGES = Relation("user", "engages", "item")


@dataclass(frozen=True, slots=True)
class Filter:
    """Only candidates whose column has one of the values (or, if so said, none at all).

    A value is text as the column holds it, or of a number a range: ``10..20``, ``..20``, ``10..``.
    """

    column: str
    values: tuple[str, ...]
    or_missing: bool = False


class LiveCounts(Protocol):
    """What was recorded later than the release's ``as_of``, as its real-time features read it."""

    @property
    def clock(self) -> int:
        """Microseconds: the time of the latest of it, or ``as_of``; what has decayed has by then."""

    def counts(self, name: str, positions: IndexArray, clock: int) -> npt.NDArray[np.float64]:
        """float64[n]: what a counter has in addition, at the clock; positions are known."""

    def taste(self, user: int, clock: int) -> Mapping[int, float]:
        """What a user has in addition of each category, by its code, at the clock."""

    def version(self, user: int) -> int:
        """Differs after anything that changes what the others give of a user."""

    def latest(self, user: int) -> Sequence[tuple[int, int]]:
        """(time, item) of a user's latest items, newest first; UNKNOWN for one of no release."""


@dataclass(slots=True)
class Waiting:
    """How long a batch waits for other processes, and which of them it does without.

    Attributes:
        until: seconds of ``time.perf_counter``.
        left_out: names of the sources that did not answer, which are not called again.
    """

    until: float
    left_out: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Requests:
    """A batch of questions; a single request is a batch of one.

    Attributes:
        query: int32[Q], positions of the users asked for; UNKNOWN where not in the release.
        now: microseconds since 1970 UTC; nothing later than this may be used.
        k: results wanted per query.
        context: request context (``region``, ``device``, …), the same for the whole batch.
        exclude: int32 ragged rows left out on the caller's word, or None.
        filters: every one of which a candidate must pass, the same for the whole batch.
        live: state of the events since the release; None in training and evaluation.
        waiting: for processes that hold parts of an index; None: one that does not answer is an
            error.
    """

    query: IndexArray
    now: int
    k: int
    context: Mapping[str, str] = field(default_factory=dict)
    exclude: tuple[IntArray, IndexArray] | None = None
    filters: tuple[Filter, ...] = ()
    live: LiveCounts | None = field(default=None, compare=False)
    waiting: Waiting | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of a batch, ragged by query, with named columns of R rows each.

    Attributes:
        indptr: int64[Q + 1].
        candidate: int32[R], positions of the candidates.
        columns: column name → array[R] (float32 scores and features, int16 ranks, …).
    """

    indptr: IntArray
    candidate: IndexArray
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.candidate)

    @property
    def queries(self) -> int:
        """Number of queries Q."""
        return len(self.indptr) - 1

    @property
    def row_query(self) -> IndexArray:
        """int32[R]: index of the query of each row."""
        return np.repeat(np.arange(self.queries, dtype=np.int32), np.diff(self.indptr))

    def rows(self) -> Iterator[slice]:
        """The slice of rows of each query, in order."""
        for start, stop in zip(self.indptr[:-1], self.indptr[1:], strict=True):
            yield slice(int(start), int(stop))

    def with_columns(self, **columns: npt.NDArray[Any]) -> Candidates:
        """The same candidates with columns added or replaced."""
        return replace(self, columns={**self.columns, **columns})

    def keep(self, mask: BoolArray) -> Candidates:
        """Only the rows where ``mask`` (bool[R]) holds, in the same order."""
        rows_before = np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))
        return Candidates(
            indptr=rows_before[self.indptr],
            candidate=self.candidate[mask],
            columns={name: values[mask] for name, values in self.columns.items()},
        )

    def take(self, order: IntArray) -> Candidates:
        """Rows permuted within their queries by ``order`` (int64[R])."""
        return Candidates(
            indptr=self.indptr,
            candidate=self.candidate[order],
            columns={name: values[order] for name, values in self.columns.items()},
        )

    def sorted_by(self, column: str) -> Candidates:
        """Best first by a column, within each query; ties by the smaller candidate."""
        order = np.lexsort((self.candidate, -self.columns[column], self.row_query))
        return self.take(order.astype(np.int64))

    def head(self, n: int) -> Candidates:
        """The first n rows of each query."""
        return self.keep(self.position() < n)

    def position(self) -> IntArray:
        """int64[R]: position of each row within its query, from 0."""
        return np.arange(len(self), dtype=np.int64) - np.repeat(
            self.indptr[:-1], np.diff(self.indptr)
        )

    @staticmethod
    def empty(queries: int) -> Candidates:
        """No candidate for any of the queries."""
        return Candidates(np.zeros(queries + 1, np.int64), np.zeros(0, np.int32))


ROUGH = "rough_score"

NO_RANK = np.int16(32767)


def rank_column(source: str) -> str:
    """Name of the column that holds a source's rank (int16, from 1; NO_RANK where absent)."""
    return f"{source}_rank"


def score_column(source: str) -> str:
    """Name of the column that holds a source's score (float32; NaN where absent)."""
    return f"{source}_score"


def standard_column(score: str) -> str:
    """Name of the column that holds a score in standard deviations within its query."""
    return f"{score}_standard"
