"""The request path: look up → retrieve → rank → policy → reasons, for a batch of queries."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from nextedge.errors import InputError
from nextedge.events.overlay import Overlay
from nextedge.serving.cache import Cache
from nextedge.serving.contacts import Contacts
from nextedge.serving.onboarding import seeded_batch
from nextedge.serving.release import LoadedRelease, LoadedSurface
from nextedge.serving.request_log import LoggedRequest, RequestLog, fingerprint
from nextedge.stages.exploration import PROPENSITY
from nextedge.stages.line import SCORE
from nextedge.stages.merge import NO_RANK, ROUGH, rank_column
from nextedge.stages.reasons import Reason
from nextedge.types import UNKNOWN, Candidates, FloatArray, Identifier, IndexArray, Requests

MAX_LIMIT = 500
ROW = "row"
_NO_ROW = np.iinfo(np.int32).max
_KEPT = 200
"""Rows of a ranked list that a cache keeps."""
_KEPT_PER_RESULT = 4
"""A list is kept only where so many rows stand behind every result, for what may be left out."""


@dataclass(frozen=True)
class Question:
    """What is asked: for whom, on which surface, how many, in which context."""

    surface: str
    k: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[Identifier] = ()
    explain: bool = False
    allow_seen: bool | None = None
    """Also existing edges; None leaves it to the policy."""


@dataclass(frozen=True)
class Recommendation:
    """One predicted edge."""

    id: Identifier
    score: float
    rank: int
    reason: Reason
    sources: tuple[str, ...]
    display: str
    propensity: float = 1.0
    """Chance with which it is at its place: 1 but for what was drawn to explore."""
    contributions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The recommendations of one user, and how they came to be."""

    user_id: Identifier
    surface: str
    kind: str
    release: str
    recommendations: tuple[Recommendation, ...]
    recommendation_id: str
    known_user: bool
    latency_ms: float
    degraded: tuple[str, ...] = ()
    cached: bool = False
    """Whether the ranking, though not what is left out of it, was kept from an earlier request."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each stage, for the whole batch."""
    cold_start: bool = False
    """Whether the user has no edge in the release: the list is of live state, not to be kept."""


def answer(
    release: LoadedRelease,
    overlay: Overlay,
    user_ids: Sequence[Identifier],
    question: Question,
    log: RequestLog | None = None,
    cache: Cache[Ranked] | None = None,
    contacts: Contacts | None = None,
) -> list[Answer]:
    """Answer for many users at once; the same as asking for each alone.

    Args:
        log: where to keep what was shown.
        cache: of ranked lists, for requests of one user; exclusions come after it.
        contacts: address books, for those without an edge in the release.

    Raises:
        UnknownSurfaceError: the release has no such surface.
        InputError: k is not within 1..500.
    """
    started = time.perf_counter()
    surface = release.surface(question.surface)
    given = prepare(release, overlay, user_ids, question)
    requests, hidden = given.requests, given.hidden
    seeds = seeded_batch(release, overlay, contacts, surface, user_ids, requests)
    watch = _Watch(started)
    watch("lookup")
    key = cached = None
    # explanations need every column, draws every candidate
    whole = question.explain or surface.settings.policy.exploration.slots > 0
    if (
        cache is not None
        and len(user_ids) == 1
        and not whole
        and requests.k * _KEPT_PER_RESULT <= _KEPT
    ):
        context = tuple(sorted(question.context.items()))
        key = release.id, surface.name, str(user_ids[0]), context
        cached = cache.get(key)
    ranked = cached or ranked_candidates(surface, requests, watch)
    if cache is not None and key is not None and cached is None:
        cache.put(key, ranked.kept(surface.line.sources))
    policy = surface.policy.with_seen(question.allow_seen)
    chosen = policy.apply(requests, seeds.merged(ranked.candidates), hidden)
    watch("policy")
    reasons = seeds.reasons(chosen, surface.reasons.explain(requests, chosen, hidden))
    parts = _contributions(surface, requests, chosen) if question.explain else None
    watch("reasons")
    spent_ms = (time.perf_counter() - started) * 1e3
    ids = release.entities.users if surface.candidate_table == "users" else release.entities.items
    names = ids.identifiers(chosen.candidate).to_pylist()
    chance = chosen.columns.get(PROPENSITY, np.ones(len(chosen), np.float32))
    answers = []
    for place, (user_id, query, rows) in enumerate(
        zip(user_ids, requests.query, chosen.rows(), strict=True)
    ):
        found = tuple(
            Recommendation(
                names[row], float(chosen.columns[SCORE][row]), row - rows.start + 1, reasons[row],
                seeds.sources(place, int(chosen.candidate[row])) or _sources(surface, chosen, row),
                release.display(surface.candidate_table, int(chosen.candidate[row])),
                float(chance[row]),
                parts[row] if parts else {},
            )
            for row in range(rows.start, rows.stop)
        )  # fmt: skip
        answers.append(
            Answer(user_id, surface.name, surface.settings.kind, release.id, found, uuid.uuid4().hex, bool(query != UNKNOWN),
                   spent_ms, ranked.degraded, cached is not None, watch.spent_ms, seeds.applies(place))
        )  # fmt: skip
    if log is not None:
        _logged(log, answers, requests, question, chosen, ranked.matrix)
    return answers


def _logged(
    log: RequestLog, answers: list[Answer], requests: Requests, question: Question,
    chosen: Candidates, matrix: FloatArray | None,
) -> None:  # fmt: skip
    """Queue what was shown; features only of what a source found."""
    place = chosen.columns.get(ROW, np.full(len(chosen), _NO_ROW))
    for answer, rows in zip(answers, chosen.rows(), strict=True):
        found = np.flatnonzero(place[rows] != _NO_ROW)
        features = np.zeros((0, 0), np.float32)
        if matrix is not None:
            features = matrix[place[rows][found]]
        log.append(
            LoggedRequest(
                answer.recommendation_id, requests.now, answer.release, answer.surface,
                answer.user_id, requests.k, dict(question.context),
                [each.id for each in answer.recommendations],
                [each.score for each in answer.recommendations],
                [each.propensity for each in answer.recommendations],
                list(answer.degraded), fingerprint(features),
                found.tolist() if matrix is not None else [],
                features if matrix is not None and log.keeps_features() else None,
            )
        )  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A batch of requests as the stages see it, and what live state hides from each."""

    requests: Requests
    hidden: Callable[[int], IndexArray]
    """For the place of a query in the batch: positions that must not be shown."""
    recently_shown: Callable[[int], IndexArray]
    """Those of them that were shown of late, where the policy leaves them out."""


def prepare(
    release: LoadedRelease, overlay: Overlay, user_ids: Sequence[Identifier], question: Question
) -> Prepared:
    """Look up a batch of users, with live state caught up.

    Raises:
        UnknownSurfaceError: the release has no such surface.
        InputError: k is not within 1..500.
    """
    surface = release.surface(question.surface)
    k = surface.settings.k if question.k is None else question.k
    if not 1 <= k <= MAX_LIMIT:
        raise InputError(f"k = {k}: expected 1 to {MAX_LIMIT}")
    overlay.catch_up()
    requests = _requests(release, surface, user_ids, k, question)
    kind, days = surface.settings.kind, surface.settings.policy.recently_shown_days
    ids = release.entities.users if kind == "people" else release.entities.items

    def positions(names: set[str]) -> IndexArray:
        places = ids.positions(sorted(names))
        return np.unique(places[places >= 0])

    @cache
    def recently_shown(row: int) -> IndexArray:
        names = overlay.shown_since(kind, user_ids[row], requests.now, days) if days else set()
        return positions(names)

    @cache
    def hidden(row: int) -> IndexArray:
        found = positions(overlay.hidden_from(kind, user_ids[row]))
        return np.union1d(found, recently_shown(row)) if days else found

    return Prepared(requests, hidden, recently_shown)


def _requests(
    release: LoadedRelease,
    surface: LoadedSurface,
    user_ids: Sequence[Identifier],
    k: int,
    question: Question,
) -> Requests:
    query = release.entities.users.positions(list(user_ids))
    exclude = None
    if question.exclude:
        ids = (
            release.entities.users if surface.candidate_table == "users" else release.entities.items
        )
        places = np.unique(ids.positions(list(question.exclude)))
        places = places[places >= 0]
        count = len(user_ids)
        exclude = np.arange(count + 1, dtype=np.int64) * len(places), np.tile(places, count)
    now = int(time.time() * 1e6)
    return Requests(query, now, k, question.context, exclude)


@dataclass(frozen=True)
class Ranked:
    """What the line makes of a batch, before the policy.

    Attributes:
        candidates: best first, with a ``score``, and in ``ROW`` their row in ``matrix``.
        matrix: float32[R, F] features of the candidates, None where nothing ranked them.
        degraded: what went wrong on the way.
    """

    candidates: Candidates
    matrix: FloatArray | None
    degraded: tuple[str, ...]

    def kept(self, sources: Iterable[str]) -> Ranked:
        """What a cache holds of it: the best, with what policy and reasons read."""
        head = self.candidates.head(_KEPT)
        names = [SCORE, *map(rank_column, sources)]
        columns = {name: head.columns[name] for name in names if name in head.columns}
        return Ranked(Candidates(head.indptr, head.candidate, columns), None, self.degraded)


class _Watch:
    """Tells where the time of a request goes."""

    def __init__(self, started: float) -> None:
        self._last = started
        self.spent_ms: dict[str, float] = {}

    def __call__(self, stage: str) -> None:
        """The stage that ends now took the time since the last."""
        now = time.perf_counter()
        self.spent_ms[stage] = (now - self._last) * 1e3
        self._last = now


def ranked_candidates(
    surface: LoadedSurface, requests: Requests, watch: Callable[[str], None] = lambda _: None
) -> Ranked:
    """Ranked candidates; when ranking fails, the rough order and the word that it did.

    Args:
        watch: told the name of each stage as it ends.
    """
    line = surface.line
    candidates = line.retrieve(requests)
    watch("candidates")
    candidates = candidates.with_columns(**{ROW: np.arange(len(candidates), dtype=np.int32)})
    if line.ranker is None:
        return Ranked(line.rank(requests, candidates), None, ("no_ranker",))
    try:
        matrix = line.matrix(requests, candidates)
        watch("features")
        ranked = line.rank(requests, candidates, matrix)
        watch("ranking")
        return Ranked(ranked, matrix, ())
    except (ValueError, RuntimeError, FloatingPointError):
        order = candidates.columns.get(ROUGH, np.zeros(0, np.float32))
        return Ranked(candidates.with_columns(**{SCORE: order}), None, ("ranker_failed",))


def _sources(surface: LoadedSurface, chosen: Candidates, row: int) -> tuple[str, ...]:
    found = []
    for name in surface.line.sources:
        ranks = chosen.columns.get(rank_column(name))
        if ranks is not None and int(ranks[row]) != int(NO_RANK):
            found.append((int(ranks[row]), name))
    drawn = PROPENSITY in chosen.columns and chosen.columns[PROPENSITY][row] < 1
    return tuple(name for _, name in sorted(found)) or ("exploration" if drawn else "popular",)


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
