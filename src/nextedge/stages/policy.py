"""Policy: the ordered rules after ranking.

exclusion → region → freshness → diversity → caps → exploration → backfill to k. Exclusion comes from live
state and is applied last before the answer, whatever was cached or precomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.errors import ConfigError, nearest
from nextedge.features.attributes import Category, Tags
from nextedge.stages.diversity import DEPTH, diverse_order, likeness
from nextedge.stages.exploration import PROPENSITY, draw, pool_of, with_drawn
from nextedge.stages.line import SCORE, blank_of
from nextedge.stages.source import Scope
from nextedge.types import (
    MICROSECONDS_PER_DAY,
    BoolArray,
    Candidates,
    IndexArray,
    IntArray,
    Requests,
)

Hidden = Callable[[int], IndexArray]
"""For the place of a query in the batch: positions that live state hides from it."""


@dataclass(frozen=True, eq=False)
class Policy:
    """The rules of one surface."""

    scope: Scope
    settings: PolicyConfig

    def with_seen(self, allow_seen: bool | None) -> Policy:
        """The same rules, with existing edges allowed or not as the caller says."""
        if allow_seen is None or allow_seen == self.settings.allow_seen:
            return self
        return Policy(self.scope, self.settings.model_copy(update={"allow_seen": allow_seen}))

    def apply(self, requests: Requests, ranked: Candidates, hidden: Hidden) -> Candidates:
        """At most k candidates per query, best first; k whenever k are eligible.

        Args:
            ranked: best first, with a ``score``.
            hidden: live exclusions of each query.
        """
        allowed = self.allowed(requests)
        places = self._excluded(requests, hidden)
        kept = ranked.keep(allowed[ranked.candidate] & ~_listed(ranked, places, len(allowed)))
        kept = self._diversify(self._freshen(requests, kept))
        chosen = (
            kept.keep(self._capped(requests, kept))
            if self.settings.max_per
            else kept.head(requests.k)
        )
        if self.settings.exploration.slots:
            chosen = self._explore(requests, chosen, kept, places, allowed)
        return self._backfill(requests, chosen, kept, places, allowed)

    def allowed(self, requests: Requests) -> BoolArray:
        """bool[candidates]: who may be shown to anyone of this batch, by the release."""
        attributes, allowed = self.scope.candidate_attributes, np.array(self.scope.known)
        region = requests.context.get("region")
        column = attributes.columns.get(self.settings.regions_column)
        if region is not None and isinstance(column, Tags | Category):
            sets = column.as_sets()
            code = column.values.index(region).as_py()
            size = np.diff(sets.indptr)
            row = np.repeat(np.arange(len(size)), size)
            inside = np.zeros(len(size), bool)
            inside[row[sets.indices == code]] = True
            allowed &= inside | (size == 0)  # without regions: everywhere
        return allowed

    def _excluded(self, requests: Requests, hidden: Hidden) -> list[IndexArray]:
        """Per query the positions to leave out: existing edges, self, blocks, live state."""
        if self.settings.allow_seen:
            indptr, indices = np.zeros(len(requests) + 1, np.int64), np.zeros(0, np.int32)
        else:
            indptr, indices = self.scope.excluded(requests)
        people = self.scope.relation.self_typed
        places = []
        for row, query in enumerate(requests.query):
            parts = [indices[indptr[row] : indptr[row + 1]], hidden(row)]
            if people and query >= 0:
                for apart in (self.scope.snapshot.blocks, self.scope.snapshot.hidden_connections):
                    parts.append(apart.row(int(query)))
                parts.append(np.array([query], np.int32))
            if requests.exclude is not None:
                own = requests.exclude
                parts.append(own[1][own[0][row] : own[0][row + 1]])
            places.append(np.unique(np.concatenate(parts)))
        return places

    def _freshen(self, requests: Requests, kept: Candidates) -> Candidates:
        """Scores of older candidates fade by half each half-life after their creation."""
        half_life = self.settings.freshness_half_life_days
        created = self.scope.candidate_attributes.instant("created_at")
        if half_life is None or created is None:
            return kept
        born = created[kept.candidate]
        days = np.where(born > 0, (requests.now - born) / MICROSECONDS_PER_DAY, 0.0)
        faded = kept.columns[SCORE] * np.exp2(-np.maximum(days, 0.0) / half_life)
        return kept.with_columns(**{SCORE: faded.astype(np.float32)}).sorted_by(SCORE)

    def _diversify(self, kept: Candidates) -> Candidates:
        """The head of every list in an order that avoids what is alike."""
        if not self.settings.diversity:
            return kept
        snapshot = self.scope.snapshot
        own = self.scope.relation.self_typed
        graph = snapshot.connections if own else snapshot.engaged_by
        order = np.arange(len(kept))
        for rows in kept.rows():
            head = order[rows][:DEPTH]
            alike = likeness(graph, kept.candidate[head])
            found = diverse_order(kept.columns[SCORE][head], alike, self.settings.diversity)
            order[rows.start : rows.start + len(head)] = head[found]
        columns = {name: values[order] for name, values in kept.columns.items()}
        return Candidates(kept.indptr, kept.candidate[order], columns)

    def _capped(self, requests: Requests, kept: Candidates) -> BoolArray:
        """bool[R]: the first k rows of each query that stay within every cap."""
        columns = [(self.codes(name), most) for name, most in self.settings.max_per.items()]
        chosen = np.zeros(len(kept), bool)
        for rows in kept.rows():
            counts: list[dict[int, int]] = [{} for _ in columns]
            taken = 0
            for row in range(rows.start, rows.stop):
                values = [int(codes[kept.candidate[row]]) for codes, _ in columns]
                full = any(
                    value >= 0 and count.get(value, 0) >= most
                    for value, count, (_, most) in zip(values, counts, columns, strict=True)
                )
                if full:
                    continue
                for value, count in zip(values, counts, strict=True):
                    count[value] = count.get(value, 0) + 1
                chosen[row] = True
                taken += 1
                if taken == requests.k:
                    break
        return chosen

    def _explore(
        self, requests: Requests, chosen: Candidates, kept: Candidates, places: list[IndexArray],
        allowed: BoolArray,
    ) -> Candidates:  # fmt: skip
        """The last places of every list to new candidates, within the caps."""
        settings = self.settings.exploration
        slots = min(settings.slots, requests.k)
        new = allowed & (self.scope.candidate_degree < settings.fewer_edges_than)
        drawn = []
        for row, (own, ranked) in enumerate(zip(chosen.rows(), kept.rows(), strict=True)):
            taken = chosen.candidate[own][: requests.k - slots]
            roomy = self._roomy(new, taken, slots)
            pool = pool_of(kept.candidate[ranked], taken, roomy, places[row], slots)
            drawn.append(draw(requests, row, pool, slots, settings.hours))
        return with_drawn(chosen, kept, drawn, requests.k)

    def _roomy(self, new: BoolArray, taken: IndexArray, slots: int) -> BoolArray:
        """bool[candidates]: the new that keep every cap, however the others are drawn."""
        roomy = new
        for name, most in self.settings.max_per.items():
            codes = self.codes(name)
            used = np.bincount(codes[taken][codes[taken] >= 0], minlength=int(codes.max()) + 1)
            full = used + slots > most
            roomy = roomy & ~((codes >= 0) & full[codes])
        return roomy

    def codes(self, name: str) -> IndexArray:
        """int32[candidates]: codes of a category column; raises ConfigError on any other."""
        column = self.scope.candidate_attributes.columns.get(name)
        if isinstance(column, Category):
            return column.codes
        raise ConfigError(
            f"policy.max_per names {name!r}, which is no category column of the candidates; "
            f"{nearest(name, category_columns(self.scope))}"
        )

    def _backfill(
        self, requests: Requests, chosen: Candidates, kept: Candidates, places: list[IndexArray],
        allowed: BoolArray,
    ) -> Candidates:  # fmt: skip
        """Fill short lists: first with what the caps left out, then with the most popular."""
        short = np.flatnonzero(np.diff(chosen.indptr) < requests.k)
        if not len(short):
            return chosen
        order = self._popular(allowed)
        extra: Mapping[int, list[int]] = {
            int(row): self._fill(int(row), requests.k, chosen, kept, places[row], order)
            for row in short
        }
        return _appended(chosen, extra)

    def _popular(self, allowed: BoolArray) -> IntArray:
        order = np.lexsort((np.arange(len(allowed)), -self.scope.candidate_degree))
        return order[allowed[order]]

    def _fill(
        self,
        row: int,
        k: int,
        chosen: Candidates,
        kept: Candidates,
        excluded: IndexArray,
        order: IntArray,
    ) -> list[int]:
        have = chosen.candidate[chosen.indptr[row] : chosen.indptr[row + 1]].tolist()
        seen = set(have) | set(excluded.tolist())
        found: list[int] = []
        for pool in (kept.candidate[kept.indptr[row] : kept.indptr[row + 1]], order):
            for candidate in pool[: k + len(seen) + 1].tolist():
                if len(have) + len(found) >= k:
                    return found
                if candidate not in seen:
                    seen.add(candidate)
                    found.append(candidate)
        return found


def category_columns(scope: Scope) -> list[str]:
    """Names of the category columns of a surface's candidates."""
    columns = scope.candidate_attributes.columns
    return [name for name, column in columns.items() if isinstance(column, Category)]


def _listed(ranked: Candidates, places: list[IndexArray], size: int) -> BoolArray:
    """bool[R]: whether the row's candidate is among the places of its query."""
    listed = np.zeros(len(ranked), bool)
    mark = np.zeros(size, bool)
    for rows, hidden in zip(ranked.rows(), places, strict=True):
        mark[hidden] = True
        listed[rows] = mark[ranked.candidate[rows]]
        mark[hidden] = False
    return listed


def _appended(chosen: Candidates, extra: Mapping[int, list[int]]) -> Candidates:
    """Rows of each query followed by its extra candidates: score 0, other columns empty."""
    ends = chosen.indptr[1:]
    where = np.concatenate(
        [np.full(len(c), ends[row]) for row, c in extra.items()] or [np.zeros(0, np.int64)]
    )
    added = np.concatenate(
        [np.asarray(c, np.int32) for c in extra.values()] or [np.zeros(0, np.int32)]
    )
    where = where.astype(np.int64)
    grown = np.zeros(len(chosen.indptr), np.int64)
    for row, candidates in extra.items():
        grown[row + 1] = len(candidates)
    columns = {}
    for name, values in chosen.columns.items():
        blank = 1.0 if name == PROPENSITY else blank_of(name, values)
        columns[name] = np.insert(values, where, np.full(len(where), blank, values.dtype))
    return Candidates(
        chosen.indptr + np.cumsum(grown), np.insert(chosen.candidate, where, added), columns
    )
