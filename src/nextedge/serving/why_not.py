"""The stage and rule that drop a candidate from a user's recommendations.

The explanation names what live state hides, so it is for operators and no part of the HTTP API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from nextedge.errors import UnknownItemError, UnknownUserError
from nextedge.events.state.overlay import Overlay
from nextedge.policy.lists import category_codes
from nextedge.ranking.pipeline import SCORE
from nextedge.retrieval.eligibility import eligible
from nextedge.serving.messages import RecommendationRequest
from nextedge.serving.prepare import prepare
from nextedge.serving.rank_with_deadline import ranked_candidates
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import Candidates, Identifier, Requests


@dataclass(frozen=True)
class WhyNot:
    """The stage that dropped a candidate.

    Attributes:
        stage: ``shown``, ``eligible``, ``excluded``, ``sources``, ``merge``, ``rank``, ``policy``.
        explanation: one sentence.
        sources: rank of the candidate by source; None if the source does not find it.
        details: the ranks, scores and limits that decided.
    """

    user_id: Identifier
    candidate_id: Identifier
    surface: str
    stage: str
    explanation: str
    sources: Mapping[str, int | None] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def why_not(
    release: LoadedRelease,
    overlay: Overlay,
    user_id: Identifier,
    candidate_id: Identifier,
    question: RecommendationRequest,
) -> WhyNot:
    """Follow one candidate through the stages of one user's request.

    Raises:
        UnknownUserError, UnknownItemError: the release does not have one of them, or the user left.
        UnknownSurfaceError: the release has no such surface.
    """
    trace = _Trace(release, overlay, user_id, candidate_id, question)
    stage, explanation = trace.last_stage()
    name = trace.surface.name
    return WhyNot(user_id, candidate_id, name, stage, explanation, trace.sources, trace.details)


class _Trace:
    """One candidate in the stages of one request."""

    def __init__(
        self,
        release: LoadedRelease,
        overlay: Overlay,
        user_id: Identifier,
        candidate_id: Identifier,
        question: RecommendationRequest,
    ) -> None:
        self.surface: LoadedSurface = release.surface(question.surface)
        people = self.surface.candidate_table == "users"
        ids = release.entities.users if people else release.entities.items
        self.candidate = int(ids.positions([candidate_id])[0])
        overlay.catch_up()
        query = int(release.entities.users.positions(overlay.query_ids([user_id]))[0])
        for position, error, name in (
            (query, UnknownUserError, user_id),
            (self.candidate, UnknownUserError if people else UnknownItemError, candidate_id),
        ):
            if position < 0:
                kind = "user" if error is UnknownUserError else "item"
                raise error(f"unknown {kind} {name!r}: not in release {release.id}")
        request = prepare(release, self.surface, overlay, [user_id], question)
        self.requests: Requests = request.requests
        self.hidden = request.hidden
        self.recently_shown = set(request.recently_shown(0).tolist())
        self.sources: dict[str, int | None] = {}
        self.details: dict[str, Any] = {}

    def last_stage(self) -> tuple[str, str]:
        """The stage that drops the candidate, and its explanation."""
        for stage in (self._eligible, self._excluded, self._retrieved, self._ranked):
            dropped = stage()
            if dropped is not None:
                return dropped
        return self._ruled()

    def _eligible(self) -> tuple[str, str] | None:
        scope = self.surface.line.scope
        if not scope.recommendable[self.candidate]:
            return "eligible", "opted out, unavailable or not there yet as of the release"
        # one rule at a time, as the explanation names the one that fails
        for rule in self.requests.filters:
            if not eligible(scope, replace(self.requests, filters=(rule,)))[self.candidate]:
                return "eligible", f"its {rule.column} is not {' or '.join(map(repr, rule.values))}"
        return None

    def _excluded(self) -> tuple[str, str] | None:
        scope, query = self.surface.line.scope, int(self.requests.query[0])
        people = scope.relation.self_typed
        if people and self.candidate == query:
            return "excluded", "the user themself"
        pair = np.array([query], np.int32), np.array([self.candidate], np.int32)
        if scope.graph.contains(*pair)[0] and not self.surface.settings.policy.allow_seen:
            return "excluded", "connected already" if people else "interacted with already"
        if people and self.candidate in scope.snapshot.blocks.row(query):
            return "excluded", "one of the two blocked the other"
        if people and self.candidate in scope.snapshot.hidden_connections.row(query):
            return "excluded", "connected already, in secret"
        if self.candidate in self.recently_shown:
            days = self.surface.settings.policy.recently_shown_days
            return "excluded", f"shown within the last {days:g} days (policy.recently_shown_days)"
        if self.candidate in self.hidden(0):
            return "excluded", (
                "events since the release: connected, blocked, dismissed, opted out or gone"
                if people
                else "events since the release: interacted with, dismissed or unavailable"
            )
        return None

    def _retrieved(self) -> tuple[str, str] | None:
        line = self.surface.line
        lists = line.search(self.requests)
        for name, part in lists.items():
            rows = np.flatnonzero(part.candidate == self.candidate)
            self.sources[name] = int(rows[0]) + 1 if len(rows) else None
        if not any(self.sources.values()):
            full = [name for name, part in lists.items() if len(part) >= line.limits[name]]
            names = ", ".join(full)
            hint = f"; these gave all they may: {names} (sources.NAME.limit)" if full else ""
            return "sources", f"no source found it{hint}"
        ranked = ranked_candidates(self.surface, self.requests)
        self.merged: Candidates = ranked.candidates
        if ranked.degraded:
            self.details["degraded"] = list(ranked.degraded)
        if self.candidate not in self.merged.candidate:
            return "merge", (
                f"found by {', '.join(n for n, rank in self.sources.items() if rank)}, but not "
                f"among the best {line.size:,} by rough score (candidates)"
            )
        return None

    def _ranked(self) -> tuple[str, str] | None:
        merged, k = self.merged, self.requests.k
        row = int(np.flatnonzero(merged.candidate == self.candidate)[0])
        score = merged.columns[SCORE]
        self.details |= {"rank": row + 1, "of": len(merged), "score": float(score[row])}
        chosen = self.chosen = self.surface.policy.apply(self.requests, merged, self.hidden)
        if self.candidate in chosen.candidate:
            rank = int(np.flatnonzero(chosen.candidate == self.candidate)[0]) + 1
            return "shown", f"it is recommended, at rank {rank}"
        last = np.flatnonzero(merged.candidate == chosen.candidate[-1])
        if len(last) and row > int(last[0]):
            self.details["score_at_k"] = float(score[last[0]])
            return "rank", (
                f"ranked {row + 1:,} of {len(merged):,}; the {k} shown end at rank "
                f"{int(last[0]) + 1:,} with score {score[last[0]]:.4g}, its own is "
                f"{score[row]:.4g}"
            )
        return None

    def _ruled(self) -> tuple[str, str]:
        policy, rank = self.surface.settings.policy, self.details["rank"]
        for name, most in policy.max_per.items():
            codes = category_codes(self.surface.line.scope, name)
            alike = int((codes[self.chosen.candidate] == codes[self.candidate]).sum())
            if codes[self.candidate] >= 0 and alike >= most:
                text = f"{alike} of its {name} are shown (max_per.{name} = {most})"
                return "policy", f"ranked {rank:,}; {text}"
        days = policy.freshness_half_life_days
        text = f"before its age counted (freshness_half_life_days = {days})"
        return "policy", f"ranked {rank:,} {text}"
