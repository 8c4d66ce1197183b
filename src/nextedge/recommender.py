"""The façade: check, build, recommend, record, evaluate, releases."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.config import Config, load_config, parse_config
from nextedge.data.erased_users import Forgotten
from nextedge.data.partition import Part
from nextedge.errors import (
    EventError,
    InputError,
    LiveStateError,
    NextEdgeError,
    NoReleaseError,
    ShardError,
    StorageError,
    UnknownSurfaceError,
    UnknownUserError,
    nearest,
)
from nextedge.events.event import Event
from nextedge.events.ingest import CheckedEvents, Ingest, Raw, Recorded
from nextedge.events.logs.log import open_live_log
from nextedge.events.logs.relay import BrokerRelays, relays_to_broker
from nextedge.events.logs.sqlite.log import FILE
from nextedge.events.request_log import RequestLog
from nextedge.events.state.checkpoint import OVERLAY, Checkpoints
from nextedge.events.state.checkpoint_writer import CheckpointWriter, write_checkpoint
from nextedge.events.state.overlay import Overlay
from nextedge.progress import Progress, quiet
from nextedge.releases.manifest import Release
from nextedge.releases.shared import open_releases
from nextedge.serving.active_release import ServedReleases
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.precomputed import (
    PublishedCandidates,
    open_candidates,
    publish,
    published_candidates,
    unpublish,
)
from nextedge.serving.caches.refresh import derive, refresh_lists
from nextedge.serving.caches.shared_lru import ranked_cache
from nextedge.serving.contacts.address_books import Contacts
from nextedge.serving.forget import Erased, forget
from nextedge.serving.live_graphs import with_live_edges
from nextedge.serving.messages import RecommendationRequest, RecommendationResponse
from nextedge.serving.rank_with_deadline import RankedList
from nextedge.serving.release import LoadedRelease
from nextedge.serving.request import answer
from nextedge.serving.shards.client import LEFT_OUT, shard_client
from nextedge.serving.why_not import WhyNot, why_not
from nextedge.storage.opening import is_bucket
from nextedge.types import Candidates, FloatArray, Identifier, IndexArray, Requests

if TYPE_CHECKING:
    import pyarrow as pa

    from nextedge.build.run import BuildOptions
    from nextedge.data.report import CheckReport
    from nextedge.engines.base import Engine
    from nextedge.evaluation.parity import ParityReport
    from nextedge.events.replay import EventsReplayed
    from nextedge.serving.replay import ReplayReport

_log = logging.getLogger("nextedge")
_BATCH = 256


class Recommender:
    """One tenant: its configuration, releases and live state.

    Args:
        location: a ``nextedge.toml``, a folder that holds one, or a folder of table files.
    """

    def __init__(self, location: str | Path | Config = "nextedge.toml") -> None:
        self.config = location if isinstance(location, Config) else load_config(location)
        self.location = None if isinstance(location, Config) else Path(location)
        """Where the configuration was read, None where it was given."""
        self.releases = open_releases(self.config)
        self.shards = shard_client(self.config)
        """The processes that hold parts of the indexes; None where requests search themselves."""
        self._frames: dict[str, pa.Table] | None = None
        self.served = ServedReleases(
            self.releases, self._load, self._forget_lists, self._over_live_edges
        )
        """Which release answers whom."""
        self._overlay: Overlay | None = None
        self._checkpoints = Checkpoints(self.config.state_path / OVERLAY)
        self._keeper: CheckpointWriter | None = None
        if self.config.events.log is not None:  # a URL that names no log is told now
            open_live_log(self.config).close()
        self._serving = False
        self._relays: BrokerRelays | None = None
        self.contacts = Contacts(self.config.state_path, self.config.onboarding, self.config.tenant)
        """Address books, for those without an edge in the release."""
        self.forgotten = Forgotten(self.config.state_path)
        self._intake = Ingest(self.config, self.forgotten, self._strangers)
        self.cache: Cache[RankedList] | None = None
        """Of ranked lists; None computes every request anew."""
        self.published: PublishedCandidates | None = None
        """Of candidates that were found before; None finds them at every request."""
        self.request_log: RequestLog | None = None
        """Keeps what is shown; None keeps nothing (see ``start_serving``)."""

    @classmethod
    def from_tables(
        cls, *, state: str | Path, settings: Mapping[str, Any] | None = None, **tables: Any
    ) -> Recommender:
        """A tenant from frames of pandas, Polars, Arrow or DuckDB (anything with PyCapsule).

        Args:
            state: folder for releases and events.
            settings: further settings, as in ``nextedge.toml``.
            tables: ``connections=…``, ``users=…``, … by table name.
        """
        from nextedge.engines.duckdb.frames import to_arrow_table
        from nextedge.schema import TABLES

        for name in tables:
            if name not in TABLES:
                raise InputError(f"no table {name!r}; {nearest(name, TABLES)}")
        raw = dict(settings or {})
        raw["state"] = str(state) if is_bucket(str(state)) else str(Path(state).resolve())
        raw["data"] = {**raw.get("data", {}), **dict.fromkeys(tables, "memory")}
        recommender = cls(parse_config(raw, base=Path(), origin="settings"))
        recommender._frames = {name: to_arrow_table(frame, name) for name, frame in tables.items()}
        return recommender

    def check(self) -> CheckReport:
        """What of the data is used, what would be dropped, and why.

        What cannot be used at all is in the report's ``fatal``; a build would stop on it.
        """
        from nextedge.data.validation import inspect_data
        from nextedge.engines.duckdb.engine import LocalEngine

        with LocalEngine() as engine:
            return inspect_data(self.config, engine, self._frames).report

    def build(
        self,
        surfaces: Sequence[str] = (),
        *,
        engine: Engine | str = "local",
        fresh: bool = False,
        promote: bool = True,
        progress: Progress = quiet,
    ) -> str:
        """Run the offline line and publish a release; returns its id.

        Args:
            engine: ``local``, ``spark``, or an engine that is open.

        Raises:
            InputError: there is no such engine.
            MissingDependencyError: it needs a package that is not installed.
        """
        from nextedge.build.run import BuildOptions

        options = BuildOptions(tuple(surfaces), fresh, promote)
        built = self.run_steps(options, engine, progress)
        assert built is not None  # as it runs to the end
        return built

    def run_steps(
        self, options: BuildOptions, engine: Engine | str = "local", progress: Progress = quiet
    ) -> str | None:
        """Run the offline line, or some of its steps; returns the release's id if one is published."""
        from nextedge.build.run import build
        from nextedge.engines.open import open_engine

        self._warn_of_own_log()
        with open_engine(engine, self.config.state_path) as engine:
            if options.until is None:
                self._hash_identifiers(engine)
            built = build(self.config, engine, options, frames=self._frames, progress=progress)
        if built is not None:
            self.keep_snapshot()
        return built

    def _hash_identifiers(self, engine: Engine) -> None:
        """Keep the users' own identifiers as hashes, where the configuration names their columns."""
        from nextedge.data.contact_columns import UsersIdentifiers

        if not self.config.onboarding.identifier_columns:
            return
        given = UsersIdentifiers(self.config, engine, self._frames or {}, self.contacts.hash_of)
        self.contacts.replace_table(given.rows())
        if given.refused:
            _log.warning("users: %d identifiers are no e-mail or +number", given.refused)

    @property
    def release(self) -> LoadedRelease:
        """The served release; follows promotion and rollback by any process."""
        return self.served.current

    def _load(self, release_id: str | None) -> LoadedRelease:
        """A release by its id, or the promoted one, ready for requests."""
        if release_id is None:
            release, refused = self.releases.current()
            for fault in refused:
                _log.warning(fault)
        else:
            release = self.releases.get(release_id)
            self.releases.verify(release)
        if self.shards is not None:
            for fault in self.shards.open_release(release.id):
                _log.warning("release %s: shards at %s", release.id, fault)
        loaded = self._over_live_edges(LoadedRelease(release, self.config, self.shards))
        if self._serving:
            self._warm_up(loaded)
        return loaded

    def _over_live_edges(self, release: LoadedRelease) -> LoadedRelease:
        """A release with the edges of now; as it is where they cannot be read."""
        if not self.config.events.live_graph:
            return release
        try:
            self.overlay.catch_up()
        except LiveStateError:
            return release
        live = with_live_edges(release, self.overlay)
        if live is release:
            return release
        if self._serving and release.live_as_of is not None:
            derive(live)
            if self.published is not None:
                most = self.config.events.neighbors_refreshed
                refresh_lists(release, live, self.published, most)
        return live

    def _forget_lists(self) -> None:
        if self.cache is not None:
            self.cache.clear()  # nothing of it is found under another release

    def publish(
        self,
        release_id: str | None = None,
        *,
        users: int | None = None,
        part: Part | None = None,
        progress: Progress = quiet,
    ) -> int:
        """Find users' candidates ahead and keep them in the store; returns how many lists.

        Stopped and run again it goes on where it was. Candidates of releases that are neither this
        one nor in use then go.

        Args:
            users: at most so many, those first who were active last; None = all.
            part: only those of them who are of this part; None = all.

        Raises:
            StoreError: the store is not reached, or full.
            ShardError: a process that holds a part of the indexes does not answer.
        """
        loaded = self.release if release_id is None else self._load(release_id)
        now = int(time.time() * 1e6)
        features = self.config.serving.candidates_features

        def find(surface: str, positions: IndexArray) -> tuple[Candidates, FloatArray | None]:
            line, requests = loaded.surface(surface).line, Requests(positions, now, 1)
            found = line.retrieve(requests)
            return found, line.matrix(requests, found) if features else None

        store = open_candidates(self.config)
        seconds, kept = self.config.serving.candidates_days * 86_400, 0
        try:
            listed = publish(
                loaded,
                store,
                find,
                seconds=seconds,
                features=features,
                most=users,
                part=part,
                in_use=self.releases.in_use(),
            )
            for surface, done, of in listed:
                progress(f"publish {surface}", done, of)
                kept += of if done == of else 0
        finally:
            store.close()
        return kept

    @property
    def overlay(self) -> Overlay:
        """Live state since the release."""
        if self._overlay is None:
            self._overlay = self._new_overlay()
        return self._overlay

    def _new_overlay(self) -> Overlay:
        days = max((surface.shown_days for surface in self.config.surfaces.values()), default=0.0)
        return Overlay(open_live_log(self.config), self._checkpoints, days)

    def keep_snapshot(self) -> None:
        """Keep the overlay as of now, so that processes that start fold only what comes after it."""
        if self.config.events.log is None and not (self.config.state_path / FILE).exists():
            return  # nothing was ever recorded
        overlay = self._new_overlay()
        try:
            write_checkpoint(lambda: overlay, self._checkpoints)
        except (StorageError, LiveStateError) as error:  # the log has it all
            _log.warning("no snapshot of the overlay: %s", error)
        finally:
            overlay.log.close()

    def start_serving(self) -> None:
        """From now on cache and log as ``[serving]`` says; ``close`` writes all that is logged."""
        settings = self.config.serving
        self._warn_of_own_log()
        self._serving = True
        self.served.watch()
        self.cache = ranked_cache(self.config)
        self.published = published_candidates(self.config)
        if settings.log_requests:
            self.request_log = self._new_request_log()
        self._relays = relays_to_broker(self.overlay.log, self.config, self._admitted)
        self._keeper = CheckpointWriter(self.overlay, self.overlay.emptied)

    def _warn_of_own_log(self) -> None:
        if self.config.state_url is not None and self.config.events.log is None:
            _log.warning(
                "state = %r and no events.log: events are kept in %s, on this machine alone; for "
                'several machines set events.log = "redis://…"',
                self.config.state_url,
                self.config.state_path,
            )

    def warm_up(self) -> None:
        """Load the served release and all that requests need of code."""
        self._warm_up(self.release)

    def _warm_up(self, release: LoadedRelease) -> None:
        """Answer once for somebody and for a stranger, so that no request pays for what is derived
        from the release, or compiled, at first use.
        """
        degree = release.snapshot.connections.degree + release.snapshot.engagements.degree
        if not len(degree):
            return
        busiest = release.entities.users.identifiers([int(degree.argmax())])[0].as_py()
        for name, surface in release.surfaces.items():
            for user in (busiest, "a stranger"):
                answer(release, self.overlay, [user], RecommendationRequest(name))
            surface.pace.expected_ms.clear()  # compiling is no part of the pace
            answer(release, self.overlay, [busiest], RecommendationRequest(name))

    def store_counts(self) -> dict[str, Mapping[str, int]]:
        """What became of reads and writes of the stores of ranked lists and of candidates."""
        kept = {"ranked": self.cache, "candidates": self.published}
        return {name: each.counts() for name, each in kept.items() if each is not None}

    def close(self) -> None:
        """Write what is queued and let go of the event log."""
        self.served.stop()
        if self.shards is not None:
            self.shards.close()
        if self._relays is not None:
            self._relays.close()
        if self._keeper is not None:
            self._keeper.stop()
        if self.request_log is not None:
            self.request_log.close()
        for kept in (self.cache, self.published):
            if kept is not None:
                kept.close()
        if self._overlay is not None:
            self._overlay.log.close()
        self.contacts.close()

    def recommend(
        self,
        user_id: Identifier,
        surface: str | None = None,
        k: int | None = None,
        *,
        context: Mapping[str, str] | None = None,
        exclude: Sequence[Identifier] = (),
        filters: Mapping[str, str | Sequence[str]] | None = None,
        cursor: str | None = None,
        explain: bool = False,
        strict: bool = False,
    ) -> RecommendationResponse:
        """Recommendations for one user; an unknown one is answered from the fallback.

        Args:
            filters: column of the candidates = the value, or the values, that they must have.
            cursor: ``next_cursor`` of the page before.

        Raises:
            UnknownUserError: ``strict`` and the release does not know the user.
        """
        question = RecommendationRequest(
            self.surface_name(surface),
            k,
            context or {},
            exclude,
            filters or {},
            cursor,
            explain=explain,
        )
        return self.recommend_many([user_id], question, strict=strict)[0]

    def recommend_many(
        self,
        user_ids: Sequence[Identifier],
        question: RecommendationRequest,
        *,
        strict: bool = False,
    ) -> list[RecommendationResponse]:
        """Recommendations for many users in one batch."""
        arms = self.served.of_users(user_ids)
        found: dict[int, RecommendationResponse] = {}
        for arm in dict.fromkeys(arms):  # several only while there is a trial
            rows = [row for row, other in enumerate(arms) if other == arm]
            asked = [user_ids[row] for row in rows]
            found |= zip(rows, self._answers(arm, asked, question, strict=strict), strict=True)
        return [found[row] for row in range(len(user_ids))]

    def _answers(
        self,
        arm: tuple[LoadedRelease, str | None],
        user_ids: Sequence[Identifier],
        question: RecommendationRequest,
        *,
        strict: bool,
    ) -> list[RecommendationResponse]:
        release, experiment = arm
        if strict:
            self.overlay.catch_up()
            places = release.entities.users.positions(self.overlay.query_ids(user_ids))
            unknown = [u for u, place in zip(user_ids, places, strict=True) if place < 0]
            if unknown:
                raise UnknownUserError(
                    f"unknown user {unknown[0]!r}: not in release {release.id}, which knows "
                    f"{len(release.entities.users):,} users"
                )
        answers = answer(
            release,
            self.overlay,
            user_ids,
            question,
            self.request_log,
            self.cache,
            self.published,
            self.contacts,
        )
        if experiment is None:
            return answers
        return [replace(each, experiment=experiment) for each in answers]

    def why_not(
        self,
        user_id: Identifier,
        candidate_id: Identifier,
        surface: str | None = None,
        k: int | None = None,
        *,
        context: Mapping[str, str] | None = None,
    ) -> WhyNot:
        """Which stage and rule keep a candidate from a user's recommendations.

        Raises:
            UnknownUserError, UnknownItemError: the release does not know one of them.
        """
        question = RecommendationRequest(self.surface_name(surface), k, context or {})
        return why_not(self.release, self.overlay, user_id, candidate_id, question)

    def recommend_all(
        self, question: RecommendationRequest, progress: Progress = quiet, part: Part | None = None
    ) -> Iterator[list[RecommendationResponse]]:
        """Recommendations for every user of the release, or of a part of them, batch by batch.

        Raises:
            ShardError: a process that holds a part of the indexes does not answer.
        """
        users = self.release.entities.users
        for start in range(0, len(users), _BATCH):
            stop = min(start + _BATCH, len(users))
            progress("recommend", start, len(users))
            ids = users.identifiers(range(start, stop)).drop_null().to_pylist()
            if part is not None:
                ids = [user for user, ours in zip(ids, part.holds(ids), strict=True) if ours]
            if ids:
                yield self._whole(self.recommend_many(ids, question))
        progress("recommend", len(users), len(users))

    def _whole(self, answers: list[RecommendationResponse]) -> list[RecommendationResponse]:
        """Answers that no part of an index was left out of; a file of all users has no others."""
        for name in answers[0].degraded:
            if name.startswith(LEFT_OUT):
                raise ShardError(
                    f"{name}: part {name.removeprefix(LEFT_OUT)} of serving.shards does not answer; "
                    "start it with 'nextedge serve-shard', then run this again"
                )
        return answers

    def surface_name(self, name: str | None) -> str:
        """The given surface, or the only one there is.

        Raises:
            UnknownSurfaceError: none was named and there are several, or it does not exist.
        """
        if name is not None:
            return self.release.surface(name).name
        names = list(self.release.surfaces)
        if len(names) != 1:
            raise UnknownSurfaceError(f"which surface? {nearest('', names)}")
        return names[0]

    def record(self, events: Raw | Iterable[Raw]) -> int:
        """Store events durably; returns how many were new.

        Events that name somebody who was forgotten are left out.

        Raises:
            EventError: an event does not fit its schema; none is stored.
        """
        sorted_out = self._sorted([events] if isinstance(events, Event | Mapping) else events)
        for each in sorted_out.rejected[:1]:
            raise EventError(each.reason)
        return self.overlay.log.append(sorted_out.kept)

    def record_each(self, events: Iterable[Raw]) -> Recorded:
        """Store those of some events that fit their schemas, durably, and say why the others do not."""
        found = self._sorted(events)
        stored = self.overlay.log.append(found.kept) if found.kept else 0
        return Recorded(found.accepted, stored, tuple(found.rejected))

    def _admitted(self, events: Sequence[Event]) -> list[Event]:
        """Events from a broker that may be kept, checked as those that are recorded here.

        Raises:
            EventError: one must not be kept.
        """
        sorted_out = self._sorted(events)
        for each in sorted_out.rejected[:1]:
            raise EventError(each.reason)
        return sorted_out.kept

    def _sorted(self, events: Iterable[Raw]) -> CheckedEvents:
        """Check events; those without a time are stamped after all that the log holds."""
        given = list(events)
        if not all(_timed(each) for each in given):
            with contextlib.suppress(LiveStateError):  # storing will say so
                self.overlay.catch_up()
                if (latest := self.overlay.latest_micros) is not None:
                    self._intake.clock.observe(latest)
        return self._intake.sort(given)

    def _strangers(self, users: Sequence[Identifier]) -> set[Identifier]:
        """Those whom neither the served release knows nor the one on trial; none before the first."""
        unknown = set(users)
        try:
            arms = self.served.of_users(users)
        except NoReleaseError:
            return set()
        for release in {id(arm[0]): arm[0] for arm in arms}.values():
            listed = list(unknown)
            places = release.entities.users.positions(listed)
            unknown = {user for user, place in zip(listed, places, strict=True) if place < 0}
        return unknown

    def forget(self, user_id: Identifier) -> Erased:
        """Erase what is kept of a person, and keep every later build from reading them.

        Run again, it ends what a stopped run began.

        Raises:
            BuildLockedError: a build is running; wait for it to end.
            StorageError: a file could not be written, or the store of candidates not reached.
        """
        state = self.config.state_path
        requests = self.request_log or self._new_request_log()
        erased = forget(state, self.releases, self.overlay.log, requests, user_id)
        self.contacts.forget(user_id)
        unpublish(self.config)
        with contextlib.suppress(NextEdgeError):  # there may be no release yet
            self.served.refresh()  # its files were replaced
        return erased

    def _new_request_log(self) -> RequestLog:
        people = [name for name, s in self.config.surfaces.items() if s.kind == "people"]
        return RequestLog(self.config.state_path, self.config.serving, people)

    def parity(self, queries: int = 200) -> list[ParityReport]:
        """Per surface whether single requests meet the batch's candidates, features and scores."""
        from nextedge.evaluation.parity import check_parity

        now = int(time.time() * 1e6)
        surfaces = self.release.surfaces.items()
        return [check_parity(each.line, name, now, queries) for name, each in surfaces]

    def replay(self, most: int = 1000) -> list[ReplayReport]:
        """Per surface whether logged features of the served release are computed again.

        Args:
            most: logged requests compared on each surface, the latest.
        """
        from nextedge.serving.replay import replay_features

        log = RequestLog(self.config.state_path, self.config.serving)
        logged = list(log.read(features=True))
        return [replay_features(self.release, name, logged, most) for name in self.release.surfaces]

    def replay_events(self, since: str) -> EventsReplayed:
        """Fold the event log anew, and let its groups of consumers have events again.

        Args:
            since: a time, as ``2026-01-31T12:00:00Z``, or a position of the log.

        Raises:
            InputError: it is neither.
            LiveStateError, StorageError: the log or the folder cannot be read or written.
        """
        from nextedge.events.replay import replay_events

        return replay_events(self.overlay.log, self._checkpoints, self.overlay.emptied, since)

    def evaluation(self, release_id: str | None = None) -> dict[str, Any]:
        """Per surface the evaluation report of a release, as plain JSON values."""
        release = self.releases.get(release_id) if release_id else self.releases.current()[0]
        return {name: _evaluation(release, name) for name in release.surfaces}


def _timed(raw: Raw) -> bool:
    """Whether an event was given with its time."""
    if isinstance(raw, Event):
        return "timestamp" in raw.model_fields_set
    return not isinstance(raw, Mapping) or raw.get("timestamp") is not None


def _evaluation(release: Release, surface: str) -> dict[str, Any]:
    path = release.path / "surfaces" / surface / "evaluation.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded
