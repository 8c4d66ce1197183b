"""Policy: the ordered rules after ranking.

exclusion → filters → freshness → diversity → caps → promotions → exploration → backfill to k. Exclusion comes from live
state and is applied last before the answer, whatever was cached or precomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.errors import ConfigError, nearest
from nextedge.graph.attributes import Category, Tags
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.policy.diversity import DEPTH, diverse_order, likeness
from nextedge.policy.exploration import PROPENSITY, draw, pool_of, with_drawn
from nextedge.policy.promotions import PROMOTED, promoted_to_show, spread
from nextedge.ranking.pipeline import SCORE, blank_of, ranked_as
from nextedge.retrieval.eligibility import eligible
from nextedge.types import MICROSECONDS_PER_DAY, BoolArray, Candidates, Filter, IndexArray, Requests

_PART = 4096
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
        allowed = eligible(self.scope, requests)
        places = self._excluded(requests, hidden)
        kept = ranked.keep(allowed[ranked.candidate] & ~_listed(ranked, places))
        kept = self._diversify(self._freshen(requests, kept))
        chosen = (
            kept.keep(self._capped(requests, kept))
            if self.settings.max_per
            else kept.head(requests.k)
        )
        if (promoted_places := int(self.settings.promotions.share * requests.k)) > 0:
            chosen, kept = self._promote(requests, chosen, kept, places, allowed, promoted_places)
        if self.settings.exploration.slots:
            chosen = self._explore(requests, chosen, kept, places, allowed)
        return self._backfill(requests, chosen, kept, places, allowed)

    def filters(self, context: Mapping[str, str]) -> tuple[Filter, ...]:
        """What a request's context filters by: its region, where candidates have regions."""
        name, region = self.settings.regions_column, context.get("region")
        column = self.scope.candidate_attributes.columns.get(name)
        if region is None or not isinstance(column, Tags | Category):
            return ()
        return (Filter(name, (region,), or_missing=True),)  # without regions: everywhere

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

    def _promote(
        self,
        requests: Requests,
        chosen: Candidates,
        kept: Candidates,
        places: list[IndexArray],
        allowed: BoolArray,
        slots: int,
    ) -> tuple[Candidates, Candidates]:
        """Some places to what the tenant promotes, beyond the caps; the list, and all ranked."""
        name = self.settings.promotions.column
        promoted = promoted_candidates(self.scope, name)
        eligible_ones = allowed & promoted
        taken = []
        for rows, own in zip(kept.rows(), places, strict=True):
            ranked, excluded = kept.candidate[rows], set(own.tolist())
            others = (c for c in self._popular(eligible_ones) if c not in excluded)
            taken.append(promoted_to_show(ranked[promoted[ranked]].tolist(), others, slots))
        extra = {
            row: sorted(set(found) - set(kept.candidate[rows].tolist()))
            for row, (found, rows) in enumerate(zip(taken, kept.rows(), strict=True))
        }
        kept = _appended(kept, extra)
        mark = [
            np.isin(kept.candidate[r], found) for r, found in zip(kept.rows(), taken, strict=True)
        ]
        kept = kept.with_columns(**{PROMOTED: np.concatenate(mark).astype(np.int8)})
        lists = [
            np.array(spread(found, chosen.candidate[rows].tolist(), requests.k, slots), np.int32)
            for found, rows in zip(taken, chosen.rows(), strict=True)
        ]
        return ranked_as(kept, lists), kept

    def _explore(
        self,
        requests: Requests,
        chosen: Candidates,
        kept: Candidates,
        places: list[IndexArray],
        allowed: BoolArray,
    ) -> Candidates:
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
        self,
        requests: Requests,
        chosen: Candidates,
        kept: Candidates,
        places: list[IndexArray],
        allowed: BoolArray,
    ) -> Candidates:
        """Fill short lists: first with what the caps left out, then with the most popular."""
        short = np.flatnonzero(np.diff(chosen.indptr) < requests.k)
        if not len(short):
            return chosen
        extra: Mapping[int, list[int]] = {
            int(row): self._fill(int(row), requests.k, chosen, kept, places[row], allowed)
            for row in short
        }
        return _appended(chosen, extra)

    def _popular(self, allowed: BoolArray) -> Iterator[int]:
        """The allowed by their number of edges, found as far as they are asked for."""
        order = _by_degree(self.scope)
        for start in range(0, len(order), _PART):
            part = order[start : start + _PART]
            yield from part[allowed[part]].tolist()

    def _fill(
        self,
        row: int,
        k: int,
        chosen: Candidates,
        kept: Candidates,
        excluded: IndexArray,
        allowed: BoolArray,
    ) -> list[int]:
        have = chosen.candidate[chosen.indptr[row] : chosen.indptr[row + 1]].tolist()
        seen = set(have) | set(excluded.tolist())
        found: list[int] = []
        ranked = kept.candidate[kept.indptr[row] : kept.indptr[row + 1]].tolist()
        for candidate in chain(ranked, self._popular(allowed)):
            if len(have) + len(found) >= k:
                break
            if candidate not in seen:
                seen.add(candidate)
                found.append(candidate)
        return found


@cached_per_snapshot
def promoted_candidates(scope: Scope, column: str) -> BoolArray:
    """bool[candidates]: whether the flag column promotes a candidate."""
    return scope.candidate_attributes.flag(column, False)


@cached_per_snapshot
def _by_degree(scope: Scope) -> IndexArray:
    """int32[candidates]: positions, those with most edges first."""
    degree = scope.candidate_degree
    return np.lexsort((np.arange(len(degree)), -degree)).astype(np.int32)


def category_columns(scope: Scope) -> list[str]:
    """Names of the category columns of a surface's candidates."""
    columns = scope.candidate_attributes.columns
    return [name for name, column in columns.items() if isinstance(column, Category)]


def _listed(ranked: Candidates, places: list[IndexArray]) -> BoolArray:
    """bool[R]: whether the row's candidate is among the places (ascending) of its query."""
    listed = np.zeros(len(ranked), bool)
    for rows, hidden in zip(ranked.rows(), places, strict=True):
        if len(hidden):
            candidate = ranked.candidate[rows]
            at = np.minimum(np.searchsorted(hidden, candidate), len(hidden) - 1)
            listed[rows] = hidden[at] == candidate
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
