"""A snapshot seen from one relation, and rows of its graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, update_wrapper
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

import numpy as np

from nextedge.graph.attributes import Attributes
from nextedge.graph.csr import Graph
from nextedge.graph.propagate import SparseRows
from nextedge.graph.snapshot import Snapshot
from nextedge.types import BoolArray, FloatArray, IndexArray, IntArray, Relation, Requests

Arguments = TypeVarTuple("Arguments")
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Scope:
    """A snapshot seen from the relation whose edges are predicted."""

    snapshot: Snapshot
    relation: Relation
    _of_snapshot: dict[Any, Any] = field(default_factory=dict, repr=False)
    _of_release: dict[Any, Any] = field(default_factory=dict, repr=False)

    def over(self, snapshot: Snapshot) -> Scope:
        """The same relation over a snapshot of the same entities with other edges."""
        # New edges change what was computed from the snapshot, not what belongs to the release.
        return Scope(snapshot, self.relation, {}, self._of_release)

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
    def recommendable(self) -> BoolArray:
        """bool[candidates]: whether a candidate could be recommended as of the snapshot."""
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
        """Ragged positions that sources leave out: existing edges, and the query itself."""
        indptr, indices = self.graph.gather(requests.query)
        if not self.relation.self_typed:
            return indptr, indices
        # An unknown query has no edge to leave out, so that any position will do for it.
        itself = np.maximum(requests.query, 0)
        return indptr + np.arange(len(indptr)), np.insert(indices, indptr[1:], itself)


class Derived(Generic[*Arguments, Value]):
    """A function of a scope, and of hashable arguments, that is computed once for each scope."""

    def __init__(self, compute: Callable[[Scope, *Arguments], Value], values: str) -> None:
        self._compute, self._values = compute, values
        update_wrapper(self, compute)

    def __call__(self, scope: Scope, *arguments: *Arguments) -> Value:
        values = getattr(scope, self._values)
        key = (self, *arguments)
        # Two threads may compute one value at once: both get the same, so no lock is needed.
        if key not in values:
            values[key] = self._compute(scope, *arguments)
        return cast(Value, values[key])

    def put(self, value: Value, scope: Scope, *arguments: *Arguments) -> None:
        """Let a scope use a value that was computed elsewhere."""
        getattr(scope, self._values)[(self, *arguments)] = value


def cached_per_snapshot(
    compute: Callable[[Scope, *Arguments], Value],
) -> Derived[*Arguments, Value]:
    """Compute a function of a scope once for each snapshot."""
    return Derived(compute, "_of_snapshot")


def cached_per_release(compute: Callable[[Scope, *Arguments], Value]) -> Derived[*Arguments, Value]:
    """Compute a function of a scope once, also for the scopes ``over`` newer edges.

    For values of attributes alone, and for those that stay as the release was built.
    """
    return Derived(compute, "_of_release")


def graph_rows(graph: Graph, query: IndexArray, values: FloatArray | None = None) -> SparseRows:
    """Rows of the given queries out of a graph, unit weights unless ``values`` (float32[E])."""
    indptr, indices = graph.gather(query)
    if values is None:
        return SparseRows(indptr, indices, np.ones(len(indices), np.float32), graph.targets)
    positions = entry_positions(graph, query, indptr)
    return SparseRows(indptr, indices, values[positions], graph.targets)


def rows_of(matrix: SparseRows, query: IndexArray) -> SparseRows:
    """Rows of the given queries out of sparse rows; those below 0 are empty."""
    start = np.where(query >= 0, matrix.indptr[np.maximum(query, 0)], 0)
    count = np.where(query >= 0, matrix.indptr[np.maximum(query, 0) + 1] - start, 0)
    indptr = np.concatenate(([0], np.cumsum(count)))
    places = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - start, count)
    return SparseRows(indptr, matrix.indices[places], matrix.values[places], matrix.columns)


def entry_positions(graph: Graph, query: IndexArray, indptr: IntArray) -> IntArray:
    """int64[entries]: position in the graph of each gathered entry of the queries' rows."""
    start = np.where(query >= 0, graph.indptr[np.maximum(query, 0)], 0)
    counts = np.diff(indptr)
    return np.arange(indptr[-1]) - np.repeat(indptr[:-1] - start, counts)
