"""What a candidate source is, what it may read, and how sources are found by name."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeVar, cast

import numpy as np

from nextedge.discovery import import_modules, named_subclasses
from nextedge.graph.attributes import Attributes
from nextedge.graph.csr import Graph
from nextedge.graph.propagate import SparseRows
from nextedge.graph.snapshot import Snapshot
from nextedge.types import (
    CONNECTS,
    ENGAGES,
    BoolArray,
    Candidates,
    FloatArray,
    IndexArray,
    IntArray,
    Relation,
    Requests,
)

Arrays = dict[str, np.ndarray]
Options = Mapping[str, Any]
Derived = TypeVar("Derived")


@dataclass(frozen=True, eq=False)
class Scope:
    """A snapshot seen from one relation: whose edges are predicted, to which candidates."""

    snapshot: Snapshot
    relation: Relation
    _derived: dict[str, Any] = field(default_factory=dict, repr=False)
    _lasting: dict[str, Any] = field(default_factory=dict, repr=False)

    def derived(
        self, name: str, compute: Callable[[], Derived], *, lasting: bool = False
    ) -> Derived:
        """What ``compute`` returns, computed once for this scope and kept under ``name``.

        Args:
            lasting: it holds for ``over`` other edges too, being made of attributes alone or, as
                what was fitted, of the release.
        """
        kept = self._lasting if lasting else self._derived
        if name not in kept:
            kept[name] = compute()
        return cast(Derived, kept[name])

    def over(self, snapshot: Snapshot) -> Scope:
        """The same relation over a snapshot of the same entities with other edges."""
        return Scope(snapshot, self.relation, {}, self._lasting)

    @property
    def graph(self) -> Graph:
        """Edges of the predicted relation, query × candidate."""
        own = self.relation.self_typed
        return self.snapshot.connections if own else self.snapshot.engagements

    @property
    def reverse_graph(self) -> Graph:
        """The same edges seen from the candidates."""
        if not self.relation.self_typed:
            return self.snapshot.engaged_by
        return self.graph if self.relation.symmetric else self.graph.reverse

    @property
    def candidate_attributes(self) -> Attributes:
        """Attributes of the candidates."""
        entities = self.snapshot.entities
        own = self.relation.self_typed
        return entities.user_attributes if own else entities.item_attributes

    @property
    def query_attributes(self) -> Attributes:
        """Attributes of the queries."""
        return self.snapshot.entities.user_attributes

    @property
    def known(self) -> BoolArray:
        """bool[candidates]: who or what could be recommended as of the snapshot."""
        own = self.relation.self_typed
        return self.snapshot.known_users if own else self.snapshot.known_items

    @property
    def timed(self) -> bool:
        """Whether edges of the predicted relation carry times."""
        return self.relation.name in self.snapshot.timed

    @cached_property
    def candidate_degree(self) -> IntArray:
        """int64[candidates]: edges of each candidate."""
        return self.graph.target_degree

    def excluded(self, requests: Requests) -> tuple[IntArray, IndexArray]:
        """Ragged positions no source should spend its places on: edges that exist, and self."""
        indptr, indices = self.graph.gather(requests.query)
        if not self.relation.self_typed:
            return indptr, indices
        own = np.maximum(requests.query, 0)  # an unknown query has no edge to leave out either
        return indptr + np.arange(len(indptr)), np.insert(indices, indptr[1:], own)


class Source(ABC):
    """A candidate source: for each query the candidates it proposes, with a score.

    A new source is one file in this package with one subclass: it is found by its ``name``.
    ``fit`` reads the snapshot once per release and returns the arrays that requests need.
    """

    name: ClassVar[str]
    relations: ClassVar[tuple[Relation, ...]] = (CONNECTS, ENGAGES)
    defaults: ClassVar[Options] = {}
    enabled: ClassVar[bool] = True
    """Whether it runs where the configuration says nothing of it."""
    reason: ClassVar[str]
    """Reason code given when this source ranked a recommendation best."""

    def __init__(self, scope: Scope, options: Options, arrays: Arrays) -> None:
        self.scope = scope
        self.options = {**self.defaults, **options}
        self.arrays = arrays

    def over(self, scope: Scope) -> Source:
        """The same source, as it was fitted, over other edges of the same entities."""
        other = copy.copy(self)
        other.scope = scope
        return other

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        """Whether the tenant's tables hold what this source reads."""
        return True

    @classmethod
    def fit(cls, scope: Scope, options: Options) -> Arrays:
        """Arrays to keep with the release; none by default."""
        return {}

    @abstractmethod
    def candidates(self, requests: Requests, limit: int) -> Candidates:
        """At most ``limit`` candidates per query, best first, with a float32 ``score``."""

    def evidence(self, query: int, candidate: int) -> tuple[str, dict[str, object]] | None:
        """What made this source propose a candidate, in words and as values, where it can say."""
        return None

    @abstractmethod
    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        """float32[R]: this source's score of given pairs, 0 where it has none."""


def source_classes() -> dict[str, type[Source]]:
    """Every source in ``nextedge.retrieval``, by name; discovered, never listed."""
    import_modules("nextedge.retrieval")
    return named_subclasses(Source)  # type: ignore[type-abstract]


def sparse_from_arrays(arrays: Arrays, prefix: str) -> SparseRows:
    """Sparse rows kept by ``sparse_arrays``."""
    return SparseRows(
        arrays[f"{prefix}_indptr"],
        arrays[f"{prefix}_indices"],
        arrays[f"{prefix}_values"],
        int(arrays[f"{prefix}_columns"]),
    )


def sparse_arrays(rows: SparseRows, prefix: str) -> Arrays:
    """Sparse rows as named arrays, to be kept with a release."""
    return {
        f"{prefix}_indptr": rows.indptr,
        f"{prefix}_indices": rows.indices,
        f"{prefix}_values": rows.values,
        f"{prefix}_columns": np.array(rows.columns),
    }


def graph_rows(graph: Graph, query: IndexArray, values: FloatArray | None = None) -> SparseRows:
    """Rows of the given queries out of a graph, unit weights unless ``values`` (float32[E])."""
    indptr, indices = graph.gather(query)
    if values is None:
        return SparseRows(indptr, indices, np.ones(len(indices), np.float32), graph.targets)
    places = entry_places(graph, query, indptr)
    return SparseRows(indptr, indices, values[places], graph.targets)


def rows_of(matrix: SparseRows, query: IndexArray) -> SparseRows:
    """Rows of the given queries out of sparse rows; those below 0 are empty."""
    start = np.where(query >= 0, matrix.indptr[np.maximum(query, 0)], 0)
    count = np.where(query >= 0, matrix.indptr[np.maximum(query, 0) + 1] - start, 0)
    indptr = np.concatenate(([0], np.cumsum(count)))
    places = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - start, count)
    return SparseRows(indptr, matrix.indices[places], matrix.values[places], matrix.columns)


def entry_places(graph: Graph, query: IndexArray, indptr: IntArray) -> IntArray:
    """int64[entries]: where each gathered entry of the queries' rows stands in the graph."""
    start = np.where(query >= 0, graph.indptr[np.maximum(query, 0)], 0)
    counts = np.diff(indptr)
    return np.arange(indptr[-1]) - np.repeat(indptr[:-1] - start, counts)
