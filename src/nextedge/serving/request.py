"""The request path: look up → retrieve → rank → policy → reasons, for a batch of queries."""

from __future__ import annotations

import time
import uuid
from collections.abc import Hashable, Sequence
from functools import partial

import numpy as np

from nextedge.errors import LiveStateError
from nextedge.events.request_log import LoggedRequest, RequestLog, fingerprint
from nextedge.events.state.overlay import Overlay
from nextedge.policy.lists import PROMOTED, PROPENSITY
from nextedge.policy.reasons import Reason
from nextedge.ranking.pipeline import SCORE
from nextedge.retrieval.merge import with_standard_scores
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.precomputed import MIXED, CachedCandidates, PublishedCandidates
from nextedge.serving.caches.ranked_list import RankedList
from nextedge.serving.cold_start.candidates import seeded_batch
from nextedge.serving.cold_start.merge import SeededBatch
from nextedge.serving.contacts.address_books import Contacts
from nextedge.serving.cursor import Cursor
from nextedge.serving.messages import Recommendation, RecommendationRequest, RecommendationResponse
from nextedge.serving.prepare import LiveEvidence, prepare
from nextedge.serving.rank_with_deadline import (
    KEPT,
    ROW,
    Deadline,
    Watch,
    cacheable,
    ranked_candidates,
    retrieved,
)
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import (
    MOST_SHOWN,
    NO_RANK,
    UNKNOWN,
    Candidates,
    FloatArray,
    Identifier,
    IndexArray,
    Requests,
    rank_column,
)

_PROMOTED = Reason("promoted", "promoted")
_NO_ROW = np.iinfo(np.int32).max
_KEPT_PER_RESULT = 4
"""A list is kept only where so many rows stand behind every result, for what may be left out."""


def answer(
    release: LoadedRelease,
    overlay: Overlay,
    user_ids: Sequence[Identifier],
    question: RecommendationRequest,
    log: RequestLog | None = None,
    cache: Cache[RankedList] | None = None,
    published: PublishedCandidates | None = None,
    contacts: Contacts | None = None,
) -> list[RecommendationResponse]:
    """Answer for many users at once; the same as asking for each alone.

    Args:
        log: where to keep what was shown.
        cache: of ranked lists, for requests of one user; exclusions come after it.
        published: candidates found before, for requests of one user.
        contacts: address books, for those without an edge in the release.

    Raises:
        UnknownSurfaceError: the release has no such surface.
        InputError: k is not within 1..500, or a filter or cursor cannot be read.
    """
    started = time.perf_counter()
    surface = release.surface(question.surface)
    watch = Watch(started, surface.pace)
    try:
        given = prepare(release, overlay, user_ids, question)
    except LiveStateError:  # nobody is shown who was not checked
        return _withheld(release, surface, user_ids, started)
    requests, hidden = given.requests, given.hidden
    seeds = seeded_batch(release, overlay, contacts, surface, user_ids, requests)
    watch("lookup")
    deadline = Deadline.after(started, question.deadline_ms, surface.pace)
    key = _cache_key(release, surface, user_ids, requests, question) if cache else None
    cached = cache.get(key) if cache is not None and key is not None else None
    whole = question.explain
    ranked, edges = cached, None
    if ranked is None:
        ranked, edges = _computed(release, surface, requests, watch, deadline, published, whole)
    if cache is not None and key is not None and cached is None and not ranked.degraded:
        cache.put(key, cacheable(ranked, surface.line.sources))
    policy = surface.policy_in(question.context.get("context")).with_seen(question.allow_seen)
    chosen = policy.apply(requests, seeds.merged(ranked.candidates), hidden)
    watch("policy")
    reasons = seeds.reasons(
        chosen, surface.reasons.explain(requests, chosen, LiveEvidence(release, overlay))
    )
    parts = _contributions(surface, requests, chosen) if question.explain else None
    watch("reasons")
    found = _recommendations(release, surface, chosen, reasons, parts, seeds)
    spent_ms = (time.perf_counter() - started) * 1e3
    books = contacts is not None and contacts.used  # they may bring somebody any time
    answers = []
    for row, (user_id, rows) in enumerate(zip(user_ids, chosen.rows(), strict=True)):
        cursor = _next_cursor(release, surface, user_id, requests, row, chosen.candidate[rows])
        answers.append(
            RecommendationResponse(
                user_id,
                surface.name,
                surface.settings.kind,
                release.id,
                tuple(found[rows]),
                uuid.uuid4().hex,
                bool(requests.query[row] != UNKNOWN),
                spent_ms,
                ranked.degraded,
                cached is not None,
                cursor,
                watch.spent_ms,
                query=int(requests.query[row]),
                positions=chosen.candidate[rows],
                edition=release.edition(int(requests.query[row])),
                cold_start=seeds.applies(row) and (books or seeds.live(row)),
            )
        )
    if log is not None:
        _logged(log, answers, requests, question, chosen, ranked.matrix, edges)
    return answers


def _cache_key(
    release: LoadedRelease,
    surface: LoadedSurface,
    user_ids: Sequence[Identifier],
    requests: Requests,
    question: RecommendationRequest,
) -> Hashable | None:
    """Under what a ranked list is kept, or None where a kept one would not do."""
    policy = surface.policy_in(question.context.get("context")).settings
    # explanations need every column, draws every candidate
    if len(user_ids) != 1 or question.explain or policy.exploration.slots:
        return None
    left_out = 0 if requests.exclude is None else len(requests.exclude[1])
    if requests.k * _KEPT_PER_RESULT + left_out > KEPT:
        return None
    query = int(requests.query[0])
    # what others do moves the features of all candidates a little: a kept list is as old as it may be
    own = 0 if requests.live is None else requests.live.version(query)
    return release.id, surface.name, str(query), requests.filters, release.edition(query), own


def _computed(
    release: LoadedRelease,
    surface: LoadedSurface,
    requests: Requests,
    watch: Watch,
    deadline: Deadline,
    published: PublishedCandidates | None,
    whole: bool,
) -> tuple[RankedList, str | None]:
    """Ranked candidates, of those that were found before where they were.

    With them the live edges that all of it follows from, None where that is not one set of them.

    Args:
        whole: with every column, not only those that policy and reasons read.
    """
    known = len(requests) == 1 and requests.query[0] != UNKNOWN and not requests.filters
    if published is None or not known:
        return ranked_candidates(surface, requests, watch, deadline, whole=whole), release.edges
    name = release.list_name(surface.name, int(requests.query[0]))
    kept = published.get(name)
    if kept is not None:
        found, matrix = kept.candidates, kept.matrix
        if matrix is not None and matrix.shape[1] != len(surface.line.features.names):
            matrix = None
        if matrix is not None:
            matrix = surface.line.renewed(requests, found, matrix)
        if matrix is None or whole:
            found = with_standard_scores(found)
        ranked = ranked_candidates(
            surface, requests, watch, deadline, found, matrix=matrix, whole=whole
        )
        same = kept.edges == release.edges
        if published.features and matrix is None and ranked.matrix is not None:
            published.put(
                name, CachedCandidates(found, ranked.matrix, kept.edges if same else MIXED)
            )
        return ranked, kept.edges if same else None
    found, late = retrieved(surface, requests, deadline)
    ranked = ranked_candidates(surface, requests, watch, deadline, found, late, whole=whole)
    if late:
        find = partial(surface.line.retrieve, requests)
        published.refresh(name, lambda: CachedCandidates(find(), edges=release.edges))
        return ranked, release.edges
    matrix = ranked.matrix if published.features else None
    published.put(name, CachedCandidates(found, matrix, release.edges))
    return ranked, release.edges


def _recommendations(
    release: LoadedRelease,
    surface: LoadedSurface,
    chosen: Candidates,
    reasons: list[Reason],
    parts: list[dict[str, float]] | None,
    seeds: SeededBatch,
) -> list[Recommendation]:
    """The rows as they are shown."""
    table = surface.candidate_table
    ids = release.entities.users if table == "users" else release.entities.items
    names = ids.identifiers(chosen.candidate).to_pylist()
    displays = release.displays(table, chosen.candidate)
    chance = chosen.columns.get(PROPENSITY, np.ones(len(chosen), np.float32)).tolist()
    promoted = chosen.columns.get(PROMOTED, np.zeros(len(chosen))) == 1
    ranks, scores = (chosen.position() + 1).tolist(), chosen.columns[SCORE].tolist()
    own, queries = _sources(surface, chosen), chosen.row_query.tolist()
    sources = [
        seeds.sources(query, candidate) or own[row]
        for row, (query, candidate) in enumerate(
            zip(queries, chosen.candidate.tolist(), strict=True)
        )
    ]
    return [
        Recommendation(
            names[row],
            scores[row],
            ranks[row],
            _PROMOTED if promoted[row] else reasons[row],
            sources[row],
            displays[row],
            chance[row],
            bool(promoted[row]),
            parts[row] if parts else {},
        )
        for row in range(len(chosen))
    ]


def _next_cursor(
    release: LoadedRelease,
    surface: LoadedSurface,
    user_id: Identifier,
    requests: Requests,
    row: int,
    shown: IndexArray,
) -> str | None:
    """Where the next page begins; None after a page that is not full, or the last there may be."""
    before = requests.exclude[1] if requests.exclude is not None else np.zeros(0, np.int32)
    own = before if len(requests) == 1 else np.zeros(0, np.int32)
    together = np.union1d(own, shown)
    if len(shown) < requests.k or len(together) + requests.k > MOST_SHOWN:
        return None
    return Cursor(release.id, tuple(together.tolist())).encode(user_id, surface.name)


def _withheld(
    release: LoadedRelease, surface: LoadedSurface, user_ids: Sequence[Identifier], started: float
) -> list[RecommendationResponse]:
    """Empty answers, which say that live state could not be read."""
    spent_ms = (time.perf_counter() - started) * 1e3
    return [
        RecommendationResponse(
            user_id,
            surface.name,
            surface.settings.kind,
            release.id,
            (),
            uuid.uuid4().hex,
            False,
            spent_ms,
            ("live_state_unavailable",),
        )
        for user_id in user_ids
    ]


def _logged(
    log: RequestLog,
    answers: list[RecommendationResponse],
    requests: Requests,
    question: RecommendationRequest,
    chosen: Candidates,
    matrix: FloatArray | None,
    edges: str | None,
) -> None:
    """Queue what was shown; features only of what a source found."""
    place = chosen.columns.get(ROW, np.full(len(chosen), _NO_ROW))
    for answer, rows in zip(answers, chosen.rows(), strict=True):
        found = np.flatnonzero(place[rows] != _NO_ROW)
        features = np.zeros((0, 0), np.float32)
        if matrix is not None:
            features = matrix[place[rows][found]]
        log.append(
            LoggedRequest(
                answer.recommendation_id,
                requests.now,
                answer.release,
                answer.surface,
                answer.user_id,
                requests.k,
                dict(question.context),
                [each.id for each in answer.recommendations],
                [each.score for each in answer.recommendations],
                [each.propensity for each in answer.recommendations],
                list(answer.degraded),
                fingerprint(features),
                found.tolist() if matrix is not None else [],
                features if matrix is not None and log.keeps_features() else None,
                edges,
            )
        )


def _sources(surface: LoadedSurface, chosen: Candidates) -> list[tuple[str, ...]]:
    """For each row the sources that found it, the one that ranked it best first."""
    names = [name for name in sorted(surface.line.sources) if rank_column(name) in chosen.columns]
    drawn = chosen.columns.get(PROPENSITY, np.ones(len(chosen))) < 1
    none: list[tuple[str, ...]] = [
        ("exploration",) if each else ("popular",) for each in drawn.tolist()
    ]
    if not names:
        return none
    ranks = np.stack([chosen.columns[rank_column(name)] for name in names], axis=1)
    order = np.argsort(ranks, axis=1, kind="stable").tolist()
    found = (ranks != NO_RANK).sum(axis=1).tolist()
    return [
        tuple(names[place] for place in best[:count]) or other
        for best, count, other in zip(order, found, none, strict=True)
    ]


def _contributions(
    surface: LoadedSurface, requests: Requests, chosen: Candidates
) -> list[dict[str, float]] | None:
    """What moved each score most: the ten largest contributions by feature."""
    parts = surface.line.contributions(requests, chosen)
    if parts is None:
        return None
    names = [*surface.line.features.names, "base"]
    out = []
    for row in parts:
        largest = np.argsort(-np.abs(row), kind="stable")[:10]
        out.append({names[f]: round(float(row[f]), 4) for f in largest if row[f]})
    return out
