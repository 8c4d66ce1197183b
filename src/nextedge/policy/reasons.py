"""Reasons of recommendations, with evidence that the viewer may see.

Evidence neither counts nor names a person who opted out or left, whom either side blocked, or whose
connection with either side ended or is hidden, by the release or by later events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numba
import numpy as np

from nextedge.graph.attributes import Category, Tags
from nextedge.graph.propagate import SparseRows
from nextedge.graph.scope import Scope, cached_per_release, graph_rows
from nextedge.retrieval.source import Source
from nextedge.schema import ColumnKind
from nextedge.types import NO_RANK, Candidates, IndexArray, IntArray, Requests, rank_column

Display = Callable[[str, int], str]
"""Takes (table, position); returns the name that a person reads."""


class Evidence(Protocol):
    """Live state on who may be evidence."""

    def witnesses(self, query: int, others: IndexArray) -> IndexArray:
        """Return the users among ``others`` that may be named to the query."""

    def severed(self, candidate: int) -> IndexArray:
        """Return the users that must not be linked to the candidate."""


_NAMED = 2


@dataclass(frozen=True)
class Reason:
    """The reason for one recommendation."""

    code: str
    text: str
    evidence: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Reasons:
    """Finds the reason of each row of the final lists."""

    sources: dict[str, Source[Any]]
    display: Display

    def explain(self, requests: Requests, chosen: Candidates, evidence: Evidence) -> list[Reason]:
        """One reason a row, in order."""
        if not len(chosen):
            return []
        source = next(iter(self.sources.values()))
        if source.scope.relation.self_typed:
            return self._people(requests, chosen, evidence)
        return self._items(requests, chosen)

    def _people(self, requests: Requests, chosen: Candidates, evidence: Evidence) -> list[Reason]:
        scope = next(iter(self.sources.values())).scope
        graph, attributes = scope.graph, scope.query_attributes
        blocks = scope.snapshot.blocks
        reasons = []
        for query, rows in zip(requests.query, chosen.rows(), strict=True):
            seen = np.zeros(0, np.int32)
            if query >= 0:
                friends = graph.row(int(query))
                # Evidence must not name a connection who opted out or was blocked.
                seen = np.setdiff1d(friends[scope.recommendable[friends]], blocks.row(int(query)))
                seen = evidence.witnesses(int(query), seen)
            ends, both = _common(graph.indptr, graph.indices, seen, chosen.candidate[rows])
            for position in range(rows.start, rows.stop):
                candidate, row = int(chosen.candidate[position]), position - rows.start
                mutual = both[ends[row] : ends[row + 1]]
                if len(mutual):
                    severed = np.concatenate((blocks.row(candidate), evidence.severed(candidate)))
                    mutual = np.setdiff1d(mutual, severed) if len(severed) else mutual
                reasons.append(
                    self._mutual(mutual, graph.degree)
                    or self._same(attributes, int(query), candidate)
                    or self._shared_tags(scope, int(query), candidate)
                    or self._shared(scope, int(query), candidate)
                    or self._by_source(chosen, position, int(query))
                )
        return reasons

    def _mutual(self, mutual: IndexArray, degree: np.ndarray) -> Reason | None:
        if not len(mutual):
            return None
        # A connection with few others says more than one whom everybody knows.
        closest = mutual[np.argsort(degree[mutual], kind="stable")][:_NAMED]
        names = [self.display("users", int(user)) for user in closest]
        return mutual_reason(len(mutual), names)

    def _same(self, attributes, query: int, candidate: int) -> Reason | None:  # type: ignore[no-untyped-def]
        if query < 0:
            return None
        shared = []
        for name in attributes.of_kind(ColumnKind.CATEGORY):
            column = attributes.columns[name]
            assert isinstance(column, Category)
            code = int(column.codes[query])
            if code >= 0 and code == int(column.codes[candidate]):
                shared.append((len(column.values), name, column.values[code].as_py()))
        if not shared:
            return None
        # A column with more values is more specific.
        shared.sort(key=lambda item: (-item[0], item[1]))
        _, name, value = shared[0]
        text = f"same {name.replace('_', ' ')}: {value}"
        return Reason(f"same_{name}", text, {"column": name, "value": value})

    def _shared_tags(self, scope: Scope, query: int, candidate: int) -> Reason | None:
        """Name the rarest shared values, of the column with most shared values."""
        if query < 0:
            return None
        best: tuple[int, str, list[object]] = (0, "", [])
        for name in scope.query_attributes.of_kind(ColumnKind.TAGS):
            column = scope.query_attributes.columns[name]
            assert isinstance(column, Tags)
            of_query, of_candidate = (
                column.rows.indices[column.rows.indptr[u] : column.rows.indptr[u + 1]]
                for u in (query, candidate)
            )
            both = np.intersect1d(of_query, of_candidate)
            if len(both) > best[0]:
                size = _sizes(scope, name)
                both = both[np.argsort(size[both], kind="stable")]
                best = (len(both), name, [column.values[int(code)].as_py() for code in both])
        count, name, values = best
        if not count:
            return None
        named = values[:_NAMED]
        text = f"shared {name.replace('_', ' ')}: {', '.join(map(str, named))}"
        text += f" and {count - _NAMED} more" if count > _NAMED else ""
        return Reason(f"shared_{name}", text, {"column": name, "count": count, "values": named})

    def _shared(self, scope, query: int, candidate: int) -> Reason | None:  # type: ignore[no-untyped-def]
        if query < 0 or not scope.snapshot.engagements.edges:
            return None
        engaged = scope.snapshot.engagements
        # A row holds no position twice, which saves two sorts.
        both = np.intersect1d(engaged.row(query), engaged.row(candidate), assume_unique=True)
        if not len(both):
            return None
        rarest = both[np.argmin(scope.snapshot.engaged_by.degree[both])]
        name = self.display("items", int(rarest))
        text = f"you both engage with {name}"
        if len(both) > 1:
            text += f" and {len(both) - 1} more"
        return Reason("shared_items", text, {"count": len(both), "item": name})

    def _items(self, requests: Requests, chosen: Candidates) -> list[Reason]:
        knn = self.sources.get("item_knn")
        because = np.full(len(chosen), -1, np.int32)
        if knn is not None:
            rows = graph_rows(knn.scope.graph, requests.query)
            because = best_middle(rows, knn.matrix, chosen)  # type: ignore[attr-defined]
        reasons, query = [], requests.query[chosen.row_query]
        for row in range(len(chosen)):
            if because[row] >= 0:
                name = self.display("items", int(because[row]))
                reasons.append(
                    Reason("because_you_liked", f"because you liked {name}", {"item": name})
                )
            else:
                reasons.append(self._by_source(chosen, row, int(query[row])))
        return reasons

    def _by_source(self, chosen: Candidates, row: int, query: int) -> Reason:
        """Return the reason of the source that ranks the row best, with its evidence."""
        # A backfilled or drawn row has no rank in any source.
        best, first = int(NO_RANK), None
        for name, source in self.sources.items():
            ranks = chosen.columns.get(rank_column(name))
            if ranks is not None and int(ranks[row]) < best:
                best, first = int(ranks[row]), source
        code = "popular" if first is None else first.reason
        evidence = None if first is None else first.evidence(query, int(chosen.candidate[row]))
        if evidence is not None:
            return Reason(code, *evidence)
        return Reason(code, _TEXTS.get(code, code.replace("_", " ")))


def mutual_reason(count: int, names: list[str]) -> Reason:
    """Return the reason for ``count`` mutual connections; it names the first two."""
    if count == 1:
        text = f"{names[0]} is a mutual connection"
    elif count == 2:
        text = f"2 mutual connections, {names[0]} and {names[1]}"
    else:
        text = f"{count} mutual connections, {names[0]} and {names[1]} among them"
    return Reason("mutual_connections", text, {"count": count, "names": names})


@numba.njit(cache=True, nogil=True)
def _common(indptr, indices, seen, candidate):  # type: ignore[no-untyped-def]
    """The nodes of ``seen`` (ascending) in each candidate's row: (int64[n + 1], int32)."""
    ends = np.zeros(len(candidate) + 1, np.int64)
    both = np.empty(len(candidate) * len(seen), np.int32)
    count = 0
    for row in range(len(candidate)):
        low, high = indptr[candidate[row]], indptr[candidate[row] + 1]
        for position in range(len(seen)):
            # Both ascend, so that each search starts where the last one ended.
            low += np.searchsorted(indices[low:high], seen[position])
            if low < high and indices[low] == seen[position]:
                both[count] = seen[position]
                count += 1
        ends[row + 1] = count
    return ends, both[:count]


@cached_per_release
def _sizes(scope: Scope, name: str) -> IntArray:
    """int64[values]: number of users with each value of a tag column."""
    column = scope.query_attributes.columns[name]
    assert isinstance(column, Tags)
    return np.bincount(column.rows.indices, minlength=len(column.values))


_TEXTS = {
    "mutual_connections": "mutual connections",
    "close_in_network": "close to you in the network",
    "similar_profile": "a profile like yours",
    "popular": "popular now",
    "popular_in_segment": "popular among people like you",
    "popular_with_connections": "popular with your connections",
    "people_like_you": "people with your taste like this",
    "because_you_liked": "like what you liked",
    "trending": "trending now",
    "new": "new here",
    "shared_items": "you engage with the same things",
}


def best_middle(rows: SparseRows, matrix: SparseRows, chosen: Candidates) -> IndexArray:
    """int32[R]: the middle node that adds most to each (query, candidate) product, or -1."""
    return _best_middle(
        rows.indptr,
        rows.indices,
        rows.values,
        matrix.indptr,
        matrix.indices,
        matrix.values,
        chosen.indptr,
        chosen.candidate,
    )


@numba.njit(cache=True, nogil=True)
def _best_middle(a_indptr, a_indices, a_values, b_indptr, b_indices, b_values, indptr, candidate):  # type: ignore[no-untyped-def]
    best = np.full(len(candidate), -1, np.int32)
    value = np.zeros(len(candidate), np.float32)
    for q in range(len(indptr) - 1):
        begin, end = indptr[q], indptr[q + 1]
        order = np.argsort(candidate[begin:end])
        wanted = candidate[begin:end][order]
        for first in range(a_indptr[q], a_indptr[q + 1]):
            middle = a_indices[first]
            for second in range(b_indptr[middle], b_indptr[middle + 1]):
                at = np.searchsorted(wanted, b_indices[second])
                if at < len(wanted) and wanted[at] == b_indices[second]:
                    row = begin + order[at]
                    if a_values[first] * b_values[second] > value[row]:
                        value[row] = a_values[first] * b_values[second]
                        best[row] = middle
    return best
