"""The request path: look up → retrieve → rank → policy → reasons, for a batch of queries."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from nextedge.errors import InputError, LiveStateError
from nextedge.events.overlay import Overlay
from nextedge.serving.cache import Cache
from nextedge.serving.contacts import Contacts
from nextedge.serving.cursor import MOST as MOST_SHOWN
from nextedge.serving.cursor import Cursor
from nextedge.serving.deadline import NO_DEADLINE, Deadline, Pace
from nextedge.serving.evidence import LiveEvidence
from nextedge.serving.onboarding import seeded_batch
from nextedge.serving.published import Kept, PublishedCandidates
from nextedge.serving.release import LoadedRelease, LoadedSurface
from nextedge.serving.request_log import LoggedRequest, RequestLog, fingerprint
from nextedge.serving.seeds import SeededBatch
from nextedge.stages.eligible import eligible
from nextedge.stages.exploration import PROPENSITY
from nextedge.stages.line import SCORE
from nextedge.stages.merge import NO_RANK, ROUGH, rank_column, with_standard_scores
from nextedge.stages.promotions import PROMOTED
from nextedge.stages.reasons import Reason
from nextedge.types import UNKNOWN, Candidates, Filter, FloatArray, Identifier, IndexArray, Requests

MAX_LIMIT = 500
MOST_FILTERS, MOST_FILTER_VALUES = 16, 100
ROW = "row"
_NONE = np.zeros(0, np.int32)
_AFTER_SOURCES = ("features", "ranking", "policy", "reasons")
_AFTER_FEATURES = _AFTER_SOURCES[1:]
_PROMOTED = Reason("promoted", "promoted")
_log = logging.getLogger("nextedge")
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
    filters: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """Column of the candidates = the value, or the values, that they must have."""
    cursor: str | None = None
    """Of the page before, to go on from there."""
    deadline_ms: float | None = None
    """What would not be done by then is left out; None waits for everything."""
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
    promoted: bool = False
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
    next_cursor: str | None = None
    """What to ask with for the next page; None where there is none."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each stage, for the whole batch."""
    experiment: str | None = None
    """Name and arm of the trial that the user is in."""
    query: int = UNKNOWN
    positions: IndexArray = field(default_factory=lambda: _NONE)
    """Of the user, and of the recommended, in the release."""
    cold_start: bool = False
    """Whether the user has no edge in the release, and live state may change the list any time."""


def answer(
    release: LoadedRelease,
    overlay: Overlay,
    user_ids: Sequence[Identifier],
    question: Question,
    log: RequestLog | None = None,
    cache: Cache[Ranked] | None = None,
    published: PublishedCandidates | None = None,
    contacts: Contacts | None = None,
) -> list[Answer]:
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
    watch = _Watch(started, surface.pace)
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
    ranked = cached or _computed(release, surface, requests, watch, deadline, published, whole)
    if cache is not None and key is not None and cached is None and not ranked.degraded:
        cache.put(key, ranked.kept(surface.line.sources))
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
    people = contacts is not None and contacts.used  # whose books may bring somebody any time
    answers = []
    for row, (user_id, rows) in enumerate(zip(user_ids, chosen.rows(), strict=True)):
        cursor = _next_cursor(release, surface, user_id, requests, row, chosen.candidate[rows])
        answers.append(
            Answer(
                user_id, surface.name, surface.settings.kind, release.id, tuple(found[rows]),
                uuid.uuid4().hex, bool(requests.query[row] != UNKNOWN), spent_ms, ranked.degraded,
                cached is not None, cursor, watch.spent_ms, query=int(requests.query[row]),
                positions=chosen.candidate[rows], cold_start=seeds.applies(row) and (people or seeds.live(row)),
            )
        )  # fmt: skip
    if log is not None:
        _logged(log, answers, requests, question, chosen, ranked.matrix)
    return answers


def _cache_key(
    release: LoadedRelease, surface: LoadedSurface, user_ids: Sequence[Identifier],
    requests: Requests, question: Question,
) -> Hashable | None:  # fmt: skip
    """Under what a ranked list is kept, or None where a kept one would not do."""
    policy = surface.policy_in(question.context.get("context")).settings
    # explanations need every column, draws every candidate
    if len(user_ids) != 1 or question.explain or policy.exploration.slots:
        return None
    left_out = 0 if requests.exclude is None else len(requests.exclude[1])
    if requests.k * _KEPT_PER_RESULT + left_out > _KEPT:
        return None
    return release.id, surface.name, str(int(requests.query[0])), requests.filters


def _computed(
    release: LoadedRelease, surface: LoadedSurface, requests: Requests, watch: _Watch,
    deadline: Deadline, published: PublishedCandidates | None, whole: bool,
) -> Ranked:  # fmt: skip
    """Ranked candidates, of those that were found before where they were.

    Args:
        whole: with every column, not only those that policy and reasons read.
    """
    known = len(requests) == 1 and requests.query[0] != UNKNOWN and not requests.filters
    if published is None or not known:
        return ranked_candidates(surface, requests, watch, deadline, whole=whole)
    position = int(requests.query[0])
    kept = published.get(release.id, surface.name, position)
    if kept is not None:
        found, matrix = kept.candidates, kept.matrix
        if matrix is None or whole:
            found = with_standard_scores(found)
        ranked = ranked_candidates(
            surface, requests, watch, deadline, found, matrix=matrix, whole=whole
        )
        if published.features and matrix is None and ranked.matrix is not None:
            published.put(release.id, surface.name, position, Kept(found, ranked.matrix))
        return ranked
    found, late = _retrieved(surface, requests, deadline)
    ranked = ranked_candidates(surface, requests, watch, deadline, found, late, whole=whole)
    if late:
        published.refresh(
            release.id, surface.name, position, lambda: Kept(surface.line.retrieve(requests))
        )
        return ranked
    matrix = ranked.matrix if published.features else None
    published.put(release.id, surface.name, position, Kept(found, matrix))
    return ranked


def _recommendations(
    release: LoadedRelease, surface: LoadedSurface, chosen: Candidates, reasons: list[Reason],
    parts: list[dict[str, float]] | None, seeds: SeededBatch,
) -> list[Recommendation]:  # fmt: skip
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
            names[row], scores[row], ranks[row], _PROMOTED if promoted[row] else reasons[row],
            sources[row], displays[row], chance[row], bool(promoted[row]),
            parts[row] if parts else {},
        )
        for row in range(len(chosen))
    ]  # fmt: skip


def _next_cursor(
    release: LoadedRelease, surface: LoadedSurface, user_id: Identifier, requests: Requests,
    row: int, shown: IndexArray,
) -> str | None:  # fmt: skip
    """Where the next page begins; None after a page that is not full, or the last there may be."""
    before = requests.exclude[1] if requests.exclude is not None else np.zeros(0, np.int32)
    own = before if len(requests) == 1 else np.zeros(0, np.int32)
    together = np.union1d(own, shown)
    if len(shown) < requests.k or len(together) + requests.k > MOST_SHOWN:
        return None
    return Cursor(release.id, tuple(together.tolist())).encode(user_id, surface.name)


def _withheld(
    release: LoadedRelease, surface: LoadedSurface, user_ids: Sequence[Identifier], started: float
) -> list[Answer]:
    """Empty answers, which say that live state could not be read."""
    spent_ms = (time.perf_counter() - started) * 1e3
    return [
        Answer(user_id, surface.name, surface.settings.kind, release.id, (), uuid.uuid4().hex,
               False, spent_ms, ("live_state_unavailable",))
        for user_id in user_ids
    ]  # fmt: skip


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
    name = question.context.get("context")
    k = surface.settings.in_context(name)[0] if question.k is None else question.k
    if not 1 <= k <= MAX_LIMIT:
        raise InputError(f"k = {k}: expected 1 to {MAX_LIMIT}")
    overlay.catch_up()
    requests = _requests(release, surface, overlay.askers(user_ids), k, question)
    kind, days = surface.settings.kind, surface.policy_in(name).settings.recently_shown_days
    ids = release.entities.users if kind == "people" else release.entities.items

    def positions(names: set[str]) -> IndexArray:
        places = ids.positions(sorted(names)) if names else _NONE
        return np.unique(places[places >= 0])

    gone = release.gone(overlay, kind)

    @cache
    def recently_shown(row: int) -> IndexArray:
        names = overlay.shown_since(kind, user_ids[row], requests.now, days) if days else set()
        return positions(names)

    @cache
    def hidden(row: int) -> IndexArray:
        own = positions(overlay.hidden_from(kind, user_ids[row]))
        found = np.union1d(own, gone) if len(gone) else own
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
    now = int(time.time() * 1e6)
    filters = _filters(surface, question)
    left_out = _left_out(release, surface, user_ids, question)
    exclude = None
    if len(left_out):
        count = len(user_ids)
        exclude = np.arange(count + 1, dtype=np.int64) * len(left_out), np.tile(left_out, count)
    requests = Requests(query, now, k, question.context, exclude, filters)
    eligible(surface.line.scope, requests)  # a filter that cannot be read is refused before work
    return requests


def _filters(surface: LoadedSurface, question: Question) -> tuple[Filter, ...]:
    given = {
        column: (values,) if isinstance(values, str) else tuple(map(str, values))
        for column, values in question.filters.items()
    }
    for column, values in given.items():
        if len(values) > MOST_FILTER_VALUES:
            raise InputError(f"filter {column!r}: at most {MOST_FILTER_VALUES} values")
    if len(given) > MOST_FILTERS:
        raise InputError(f"{len(given)} filters: expected at most {MOST_FILTERS}")
    wanted = tuple(Filter(column, values) for column, values in sorted(given.items()))
    return wanted + surface.policy.filters(question.context)


def _left_out(
    release: LoadedRelease, surface: LoadedSurface, user_ids: Sequence[Identifier],
    question: Question,
) -> IndexArray:  # fmt: skip
    """Positions that the caller names, and those of the pages before; ascending.

    Raises:
        InputError: too many are named, or the cursor cannot be read.
    """
    if len(question.exclude) > MOST_SHOWN:
        raise InputError(
            f"exclude: {len(question.exclude):,} ids, expected at most {MOST_SHOWN:,}; record what "
            "must never be shown as an event of type 'dismiss'"
        )
    table = surface.candidate_table
    ids = release.entities.users if table == "users" else release.entities.items
    places = ids.positions(list(question.exclude)) if question.exclude else np.zeros(0, np.int32)
    if question.cursor is not None:
        if len(user_ids) != 1:
            raise InputError("cursor: it goes with one user")
        cursor = Cursor.decode(question.cursor, user_ids[0], surface.name)
        places = np.concatenate(
            (places, release.positions_from(cursor.release, table, cursor.shown))
        )
    return np.unique(places[places >= 0]).astype(np.int32)


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
        head = _slim(self.candidates, (SCORE,), sources).head(_KEPT)
        return Ranked(head, None, self.degraded)


def _slim(found: Candidates, names: Iterable[str], sources: Iterable[str]) -> Candidates:
    """Only the named columns, and the ranks of the sources: what policy and reasons read."""
    kept = [name for name in (*names, *map(rank_column, sources)) if name in found.columns]
    return replace(found, columns={name: found.columns[name] for name in kept})


class _Watch:
    """Tells where the time of a request goes, and teaches the surface's pace."""

    def __init__(self, started: float, pace: Pace) -> None:
        self._last = started
        self._pace = pace
        self.spent_ms: dict[str, float] = {}

    def __call__(self, stage: str) -> None:
        """The stage that ends now took the time since the last."""
        now = time.perf_counter()
        self.spent_ms[stage] = (now - self._last) * 1e3
        self._pace.took(stage, self.spent_ms[stage])
        self._last = now


def _retrieved(
    surface: LoadedSurface, requests: Requests, deadline: Deadline
) -> tuple[Candidates, tuple[str, ...]]:
    """Candidates of the sources that there is time for, and which there was not."""
    late: list[str] = []

    def run(name: str, find: Callable[[], Candidates]) -> Candidates | None:
        stage = f"source {name}"
        if not deadline.allows(stage, reserve=_AFTER_SOURCES):
            late.append(f"late_{name}")
            return None
        begun = time.perf_counter()
        found = find()
        surface.pace.took(stage, (time.perf_counter() - begun) * 1e3)
        return found

    return surface.line.retrieve(requests, run), tuple(late)


def ranked_candidates(
    surface: LoadedSurface,
    requests: Requests,
    watch: Callable[[str], None] = lambda _: None,
    deadline: Deadline = NO_DEADLINE,
    candidates: Candidates | None = None,
    late: tuple[str, ...] = (),
    matrix: FloatArray | None = None,
    whole: bool = True,
) -> Ranked:
    """Ranked candidates; when ranking fails or is late, the rough order and the word that it did.

    Args:
        watch: told the name of each stage as it ends.
        candidates: where they are at hand.
        late: sources that were left out of them.
        matrix: their features, where those are at hand.
        whole: with every column, not only those that policy and reasons read.
    """
    line = surface.line
    if candidates is None:
        candidates, late = _retrieved(surface, requests, deadline)
    watch("candidates")
    candidates = candidates.with_columns(**{ROW: np.arange(len(candidates), dtype=np.int32)})
    if line.ranker is None:
        return Ranked(line.rank(requests, candidates), None, (*late, "no_ranker"))
    known = matrix is not None and matrix.shape[1] == len(line.features.names)
    if not deadline.allows("ranking" if known else "features", reserve=_AFTER_FEATURES):
        return Ranked(_by_rough_score(candidates), None, (*late, "late_ranking"))
    try:
        if matrix is None or not known:
            matrix = line.matrix(requests, candidates)
        watch("features")
        candidates = candidates if whole else _slim(candidates, (ROUGH, ROW), line.sources)
        ranked = line.rank(requests, candidates, matrix)
        watch("ranking")
        return Ranked(ranked, matrix, late)
    except (ValueError, RuntimeError, FloatingPointError):
        _log.exception("surface %s: ranking failed; answered in rough order", surface.name)
        return Ranked(_by_rough_score(candidates), None, (*late, "ranker_failed"))


def _by_rough_score(candidates: Candidates) -> Candidates:
    order = candidates.columns.get(ROUGH, np.zeros(0, np.float32))
    return candidates.with_columns(**{SCORE: order})


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
