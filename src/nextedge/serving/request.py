"""The request path: look up → retrieve → rank → policy → reasons, for a batch of queries."""

from __future__ import annotations

import time
import uuid
from collections.abc import Hashable, Sequence

import numpy as np

from nextedge.errors import LiveStateError
from nextedge.events.request_log import LoggedRequest, RequestLog, fingerprint
from nextedge.events.state.overlay import Overlay
from nextedge.policy.lists import PROMOTED, PROPENSITY
from nextedge.policy.reasons import Reason
from nextedge.ranking.pipeline import SCORE
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.precomputed import PublishedCandidates
from nextedge.serving.caches.ranked_list import RankedList
from nextedge.serving.cold_start.candidates import seeded_batch
from nextedge.serving.cold_start.merge import SeededBatch
from nextedge.serving.contacts.address_books import Contacts
from nextedge.serving.cursor import next_cursor
from nextedge.serving.messages import Recommendation, RecommendationRequest, RecommendationResponse
from nextedge.serving.prepare import LiveEvidence, Prepared, prepare
from nextedge.serving.rank_with_deadline import (
    CACHED_ROWS,
    ROW,
    Deadline,
    Watch,
    cacheable,
    computed,
)
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import (
    NO_RANK,
    UNKNOWN,
    Candidates,
    FloatArray,
    Identifier,
    Requests,
    rank_column,
)

_PROMOTED = Reason("promoted", "promoted")
_NO_ROW = np.iinfo(np.int32).max
_CACHED_PER_RESULT = 4
"""Rows of a cached list for each result: the policy may leave rows out."""


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
    """The recommendations of several users; a batch gives the same as single requests.

    Args:
        log: the request log of the impressions; None logs nothing.
        cache: of ranked lists, for requests of one user; exclusions apply after it.
        published: precomputed candidates, for requests of one user.
        contacts: address books, for users without an edge in the release.

    Raises:
        UnknownSurfaceError: the release has no such surface.
        InputError: k is not within 1..500, or a filter or cursor cannot be read.
    """
    started = time.perf_counter()
    surface = release.surface(question.surface)
    watch = Watch(started, surface.pace)
    try:
        prepared = prepare(release, surface, overlay, user_ids, question)
    except LiveStateError:  # an unreadable event may hide any candidate
        return _empty_answers(release, surface, user_ids, started)
    requests, whole = prepared.requests, question.explain
    seeds = _seeds(release, overlay, contacts, surface, user_ids, requests)
    watch("lookup")
    deadline = Deadline.after(started, question.deadline_ms, surface.pace)
    key = _cache_key(release, surface, prepared, question) if cache else None
    cached = cache.get(key) if cache is not None and key is not None else None
    ranked, edges = cached, None
    if ranked is None:
        ranked, edges = computed(release, surface, requests, watch, deadline, published, whole)
    # a degraded list would outlive the late stage that it lacks
    if cache is not None and key is not None and cached is None and not ranked.degraded:
        cache.put(key, cacheable(ranked, surface.line.sources))
    candidates = ranked.candidates if seeds is None else seeds.merged(ranked.candidates)
    # after every cache, so no cached list shows what live state hides
    policy = prepared.policy.with_seen(question.allow_seen)
    chosen = policy.apply(requests, candidates, prepared.hidden)
    watch("policy")
    reasons = surface.reasons.explain(requests, chosen, LiveEvidence(release, overlay))
    if seeds is not None:
        reasons = seeds.reasons(chosen, reasons)
    parts = _contributions(surface, requests, chosen) if question.explain else None
    watch("reasons")
    recommendations = _recommendations(release, surface, chosen, reasons, parts, seeds)
    spent_ms = (time.perf_counter() - started) * 1e3
    answers = []
    for row, (user_id, rows) in enumerate(zip(user_ids, chosen.rows(), strict=True)):
        query, shown = int(requests.query[row]), chosen.candidate[rows]
        answers.append(
            RecommendationResponse(
                user_id=user_id,
                surface=surface.name,
                kind=surface.settings.kind,
                release=release.id,
                recommendations=tuple(recommendations[rows]),
                recommendation_id=uuid.uuid4().hex,
                known_user=query != UNKNOWN,
                latency_ms=spent_ms,
                degraded=ranked.degraded,
                cached=cached is not None,
                next_cursor=next_cursor(release.id, surface.name, user_id, requests, row, shown),
                stages=watch.spent_ms,
                query=query,
                positions=shown,
                edition=release.edition(query),
                cold_start=seeds is not None and _is_live(seeds, row, contacts),
                live=prepared.versions[row],
            )
        )
    if log is not None:
        _log_impressions(log, answers, requests, question, chosen, ranked.matrix, edges)
    return answers


def _seeds(
    release: LoadedRelease,
    overlay: Overlay,
    contacts: Contacts | None,
    surface: LoadedSurface,
    user_ids: Sequence[Identifier],
    requests: Requests,
) -> SeededBatch | None:
    """Candidates from live state for queries without an edge in the release; None without any."""
    degree = surface.line.scope.graph.degree
    if all(query != UNKNOWN and degree[query] for query in requests.query):
        return None
    return seeded_batch(release, overlay, contacts, surface, user_ids, requests)


def _is_live(seeds: SeededBatch, row: int, contacts: Contacts | None) -> bool:
    """Whether live state may change a list at any time."""
    # another user may upload an address book that has this one
    books = contacts is not None and contacts.used
    return seeds.applies(row) and (books or seeds.live(row))


def _cache_key(
    release: LoadedRelease,
    surface: LoadedSurface,
    prepared: Prepared,
    question: RecommendationRequest,
) -> Hashable | None:
    """The cache key of a ranked list; None if a cached list is not enough."""
    requests = prepared.requests
    # explanations need all columns, exploration draws from all candidates
    if len(requests) != 1 or question.explain or prepared.policy.settings.exploration.slots:
        return None
    left_out = 0 if requests.exclude is None else len(requests.exclude[1])
    if requests.k * _CACHED_PER_RESULT + left_out > CACHED_ROWS:
        return None
    query = int(requests.query[0])
    # events of other users move the features a little: the cache's lifetime bounds their age
    version = 0 if requests.live is None else requests.live.version(query)
    return release.id, surface.name, str(query), requests.filters, release.edition(query), version


def _recommendations(
    release: LoadedRelease,
    surface: LoadedSurface,
    chosen: Candidates,
    reasons: list[Reason],
    parts: list[dict[str, float]] | None,
    seeds: SeededBatch | None,
) -> list[Recommendation]:
    """The recommendations of all rows."""
    table = surface.candidate_table
    ids = release.entities.users if table == "users" else release.entities.items
    names = ids.identifiers(chosen.candidate).to_pylist()
    displays = release.displays(table, chosen.candidate)
    chance = chosen.columns.get(PROPENSITY, np.ones(len(chosen), np.float32)).tolist()
    promoted = chosen.columns.get(PROMOTED, np.zeros(len(chosen))) == 1
    ranks, scores = (chosen.position() + 1).tolist(), chosen.columns[SCORE].tolist()
    sources = _sources(surface, chosen)
    if seeds is not None:
        pairs = zip(chosen.row_query.tolist(), chosen.candidate.tolist(), strict=True)
        sources = [seeds.sources(*pair) or sources[row] for row, pair in enumerate(pairs)]
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


def _empty_answers(
    release: LoadedRelease, surface: LoadedSurface, user_ids: Sequence[Identifier], started: float
) -> list[RecommendationResponse]:
    """Empty answers that say ``live_state_unavailable``."""
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


def _log_impressions(
    log: RequestLog,
    answers: list[RecommendationResponse],
    requests: Requests,
    question: RecommendationRequest,
    chosen: Candidates,
    matrix: FloatArray | None,
    edges: str | None,
) -> None:
    """Queue the impressions of a batch for the request log."""
    row = chosen.columns.get(ROW, np.full(len(chosen), _NO_ROW))
    for answer, rows in zip(answers, chosen.rows(), strict=True):
        # backfilled candidates have no features, as no source found them
        ranks = np.flatnonzero(row[rows] != _NO_ROW)
        features = np.zeros((0, 0), np.float32)
        if matrix is not None:
            features = matrix[row[rows][ranks]]
        shown = answer.recommendations
        log.append(
            LoggedRequest(
                answer.recommendation_id,
                requests.now,
                answer.release,
                answer.surface,
                answer.user_id,
                requests.k,
                dict(question.context),
                [item.id for item in shown],
                [item.score for item in shown],
                [item.propensity for item in shown],
                list(answer.degraded),
                fingerprint(features),
                ranks.tolist() if matrix is not None else [],
                features if matrix is not None and log.keeps_features() else None,
                edges,
            )
        )


def _sources(surface: LoadedSurface, chosen: Candidates) -> list[tuple[str, ...]]:
    """The sources of each row, the one that ranked it best first."""
    # sorted, as ties between sources go by this order
    names = [name for name in sorted(surface.line.sources) if rank_column(name) in chosen.columns]
    drawn = chosen.columns.get(PROPENSITY, np.ones(len(chosen))) < 1
    fallback: list[tuple[str, ...]] = [
        ("exploration",) if explored else ("popular",) for explored in drawn.tolist()
    ]
    if not names:
        return fallback
    ranks = np.stack([chosen.columns[rank_column(name)] for name in names], axis=1)
    order = np.argsort(ranks, axis=1, kind="stable").tolist()
    counts = (ranks != NO_RANK).sum(axis=1).tolist()
    return [
        tuple(names[index] for index in best[:count]) or other
        for best, count, other in zip(order, counts, fallback, strict=True)
    ]


def _contributions(
    surface: LoadedSurface, requests: Requests, chosen: Candidates
) -> list[dict[str, float]] | None:
    """The ten largest contributions of features to each score."""
    parts = surface.line.contributions(requests, chosen)
    if parts is None:
        return None
    names = [*surface.line.features.names, "base"]
    out = []
    for row in parts:
        largest = np.argsort(-np.abs(row), kind="stable")[:10]
        out.append({names[f]: round(float(row[f]), 4) for f in largest if row[f]})
    return out
