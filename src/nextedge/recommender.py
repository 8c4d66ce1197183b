"""The façade: check, build, recommend, record, evaluate, releases."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.config import Config, load_config, parse_config
from nextedge.data.forgotten import Forgotten
from nextedge.errors import (
    InputError,
    NoReleaseError,
    UnknownSurfaceError,
    UnknownUserError,
    nearest,
)
from nextedge.events.event import Event, parse_event
from nextedge.events.log import LocalLog
from nextedge.events.overlay import Overlay
from nextedge.releases.repository import Release, Releases
from nextedge.serving.cache import Cache
from nextedge.serving.forget import Erased, forget
from nextedge.serving.release import LoadedRelease
from nextedge.serving.request import Answer, Question, Ranked, answer
from nextedge.serving.request_log import RequestLog
from nextedge.serving.why_not import WhyNot, why_not
from nextedge.steps.step import Progress, quiet
from nextedge.types import Identifier

if TYPE_CHECKING:
    import pyarrow as pa

    from nextedge.data.report import CheckReport
    from nextedge.evaluation.parity import ParityReport
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
        self.releases = Releases(self.config.state_path)
        self._frames: dict[str, pa.Table] | None = None
        self._loaded: LoadedRelease | None = None
        self._overlay: Overlay | None = None
        self.forgotten = Forgotten(self.config.state_path)
        self.cache: Cache[Ranked] | None = None
        """Of ranked lists; None computes every request anew."""
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
        from nextedge.data.frames import to_arrow_table
        from nextedge.schema import TABLES

        for name in tables:
            if name not in TABLES:
                raise InputError(f"no table {name!r}; {nearest(name, TABLES)}")
        raw = dict(settings or {})
        raw["state"] = str(Path(state).resolve())
        raw["data"] = {**raw.get("data", {}), **dict.fromkeys(tables, "memory")}
        recommender = cls(parse_config(raw, base=Path(), origin="settings"))
        recommender._frames = {name: to_arrow_table(frame, name) for name, frame in tables.items()}
        return recommender

    def check(self) -> CheckReport:
        """What of the data is used, what would be dropped, and why.

        What cannot be used at all is in the report's ``fatal``; a build would stop on it.
        """
        from nextedge.data.validation import inspect_data
        from nextedge.engines.local import LocalEngine

        with LocalEngine() as engine:
            return inspect_data(self.config, engine, self._frames).report

    def build(
        self,
        surfaces: Sequence[str] = (),
        *,
        fresh: bool = False,
        promote: bool = True,
        progress: Progress = quiet,
    ) -> str:
        """Run the offline line and publish a release; returns its id."""
        from nextedge.engines.local import LocalEngine
        from nextedge.steps.run import BuildOptions, build

        spill = self.config.state_path / "spill"
        with LocalEngine(temp_directory=spill) as engine:
            options = BuildOptions(tuple(surfaces), fresh, promote)
            return build(self.config, engine, options, frames=self._frames, progress=progress)

    @property
    def release(self) -> LoadedRelease:
        """The served release; follows promotion and rollback by any process."""
        current = self.releases.current_id()
        if self._loaded is None or self._loaded.id != current:
            release, refused = self.releases.current()
            for fault in refused:
                _log.warning(fault)
            if self._loaded is None or self._loaded.id != release.id:
                self._loaded = LoadedRelease(release, self.config)
                if self.cache is not None:
                    self.cache.clear()  # nothing of it is found under another release
        return self._loaded

    @property
    def overlay(self) -> Overlay:
        """Live state since the release."""
        if self._overlay is None:
            self._overlay = Overlay(LocalLog(self.config.state_path))
        return self._overlay

    def start_serving(self) -> None:
        """From now on cache and log as ``[serving]`` says; ``close`` writes all that is logged."""
        settings = self.config.serving
        self._warm_up()
        self.cache = Cache(settings.cache_entries, settings.cache_seconds)
        if settings.log_requests:
            self.request_log = self._new_request_log()

    def _warm_up(self) -> None:
        """Answer once for somebody and for a stranger, so that no request pays for what is derived
        from the release, or compiled, at first use.
        """
        try:
            release = self.release
        except NoReleaseError:
            return
        degree = release.snapshot.connections.degree + release.snapshot.engagements.degree
        if not len(degree):
            return
        busiest = release.entities.users.identifiers([int(degree.argmax())])[0].as_py()
        for name in release.surfaces:
            for user in (busiest, "a stranger"):
                self.recommend_many([user], Question(name))

    def close(self) -> None:
        """Write what is queued and let go of the event log."""
        if self.request_log is not None:
            self.request_log.close()
        if self._overlay is not None:
            self._overlay.log.close()

    def recommend(
        self,
        user_id: Identifier,
        surface: str | None = None,
        k: int | None = None,
        *,
        context: Mapping[str, str] | None = None,
        exclude: Sequence[Identifier] = (),
        explain: bool = False,
        strict: bool = False,
    ) -> Answer:
        """Recommendations for one user; an unknown one is answered from the fallback.

        Raises:
            UnknownUserError: ``strict`` and the release does not know the user.
        """
        question = Question(self.surface_name(surface), k, context or {}, exclude, explain)
        return self.recommend_many([user_id], question, strict=strict)[0]

    def recommend_many(
        self, user_ids: Sequence[Identifier], question: Question, *, strict: bool = False
    ) -> list[Answer]:
        """Recommendations for many users in one batch."""
        release = self.release
        if strict:
            self.overlay.catch_up()
            places = release.entities.users.positions(self.overlay.askers(user_ids))
            unknown = [u for u, place in zip(user_ids, places, strict=True) if place < 0]
            if unknown:
                raise UnknownUserError(
                    f"unknown user {unknown[0]!r}: not in release {release.id}, which knows "
                    f"{len(release.entities.users):,} users"
                )
        return answer(release, self.overlay, user_ids, question, self.request_log, self.cache)

    def why_not(
        self, user_id: Identifier, candidate_id: Identifier, surface: str | None = None,
        k: int | None = None, *, context: Mapping[str, str] | None = None,
    ) -> WhyNot:  # fmt: skip
        """Which stage and rule keep a candidate from a user's recommendations.

        Raises:
            UnknownUserError, UnknownItemError: the release does not know one of them.
        """
        question = Question(self.surface_name(surface), k, context or {})
        return why_not(self.release, self.overlay, user_id, candidate_id, question)

    def recommend_all(
        self, question: Question, progress: Progress = quiet
    ) -> Iterator[list[Answer]]:
        """Recommendations for every user of the release, batch by batch."""
        users = self.release.entities.users
        for start in range(0, len(users), _BATCH):
            stop = min(start + _BATCH, len(users))
            progress("recommend", start, len(users))
            ids = users.identifiers(range(start, stop)).drop_null().to_pylist()
            yield self.recommend_many(ids, question)
        progress("recommend", len(users), len(users))

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

    def record(
        self, events: Event | Mapping[str, Any] | Iterable[Event | Mapping[str, Any]]
    ) -> int:
        """Store events durably; returns how many were new.

        Events that name somebody who was forgotten are left out.

        Raises:
            EventError: an event does not fit its schema; none is stored.
        """
        given = [events] if isinstance(events, Event | Mapping) else list(events)
        parsed = [parse_event(e.model_dump() if isinstance(e, Event) else e) for e in given]
        forgotten = self.forgotten
        kept = [e for e in parsed if not forgotten.among((e.user_id, e.candidate_id))]
        return self.overlay.log.append(kept)

    def forget(self, user_id: Identifier) -> Erased:
        """Erase what is kept of a person, and keep every later build from reading them.

        Run again, it ends what a stopped run began.

        Raises:
            BuildLockedError: a build is running; wait for it to end.
            StorageError: a file could not be written.
        """
        state = self.config.state_path
        requests = self.request_log or self._new_request_log()
        erased = forget(state, self.releases, self.overlay.log, requests, user_id)
        self._loaded = None
        if self.cache is not None:
            self.cache.clear()
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

    def evaluation(self, release_id: str | None = None) -> dict[str, Any]:
        """Per surface the evaluation report of a release, as plain JSON values."""
        release = self.releases.get(release_id) if release_id else self.releases.current()[0]
        return {name: _evaluation(release, name) for name in release.surfaces}


def _evaluation(release: Release, surface: str) -> dict[str, Any]:
    path = release.path / "surfaces" / surface / "evaluation.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded
