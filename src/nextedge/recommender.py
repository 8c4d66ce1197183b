"""The façade of one tenant: check, build, recommend, record, evaluate, releases."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.config import Config, load_config
from nextedge.progress import Progress, quiet
from nextedge.serving.messages import RecommendationRequest, RecommendationResponse
from nextedge.serving.session import ServingSession, Session

if TYPE_CHECKING:
    from nextedge.build.run import BuildOptions
    from nextedge.data.partition import Part
    from nextedge.data.report import CheckReport
    from nextedge.engines.base import Engine
    from nextedge.evaluation.parity import ParityReport
    from nextedge.events.ingest import Raw, Recorded
    from nextedge.events.replay import EventsReplayed
    from nextedge.events.state.overlay import Overlay
    from nextedge.serving.forget import Erased
    from nextedge.serving.release.loaded import LoadedRelease
    from nextedge.serving.replay import ReplayReport
    from nextedge.serving.why_not import WhyNot
    from nextedge.types import Identifier


class Recommender:
    """One tenant: its configuration, releases and live state.

    Args:
        location: a ``nextedge.toml``, a folder that holds one, or a folder of table files.
    """

    def __init__(self, location: str | Path | Config = "nextedge.toml") -> None:
        self.config = location if isinstance(location, Config) else load_config(location)
        # a build over HTTP is a process of its own, which reads this file
        self.location = None if isinstance(location, Config) else Path(location)
        """Path of the configuration; None if the argument was a ``Config``."""
        self.session = Session(self.config)
        """Loaded releases and live state, with the caches and threads of a server once it serves."""
        self.releases = self.session.loader.repository
        self.contacts = self.session.contacts
        self._frames: dict[str, Any] = {}

    @classmethod
    def from_tables(
        cls, *, state: str | Path, settings: Mapping[str, Any] | None = None, **tables: Any
    ) -> Recommender:
        """A tenant whose tables are frames of pandas, Polars, Arrow or DuckDB (PyCapsule).

        Args:
            state: folder for releases and events.
            settings: other settings, as in ``nextedge.toml``.
            tables: ``connections=…``, ``users=…``, … by table name.
        """
        from nextedge.data.frames import tenant_of_frames

        config, frames = tenant_of_frames(state, settings or {}, tables)
        recommender = cls(config)
        recommender._frames = frames
        return recommender

    def check(self) -> CheckReport:
        """What a build uses of the data, what it drops, and why; ``fatal`` faults stop a build."""
        # imported here, as elsewhere in the class: a server loads no DuckDB and no LightGBM
        from nextedge.data.validation import check_data
        from nextedge.policy.check import check_plugins

        check_plugins(self.config)
        return check_data(self.config, self._frames)

    def build(
        self,
        surfaces: Sequence[str] = (),
        *,
        engine: Engine | str = "local",
        fresh: bool = False,
        promote: bool = True,
        progress: Progress = quiet,
    ) -> str:
        """Build and publish a release; returns its id.

        Args:
            engine: ``local``, ``spark``, or an open engine.

        Raises:
            InputError: the engine does not exist.
            MissingDependencyError: the engine needs a package that is not installed.
        """
        from nextedge.build.run import BuildOptions

        built = self.run_steps(BuildOptions(tuple(surfaces), fresh, promote), engine, progress)
        assert built is not None  # as no step is the last
        return built

    def run_steps(
        self, options: BuildOptions, engine: Engine | str = "local", progress: Progress = quiet
    ) -> str | None:
        """Build a release, or run some steps of it; returns the id of a published release."""
        from nextedge.build.run import build
        from nextedge.engines.open import open_engine

        # events that other machines record would be missing from the release
        self.session.live.warn_of_local_log()
        with open_engine(engine, self.config.state_path) as opened:
            if options.until is None:
                self.session.hash_identifiers(opened, self._frames)
            built = build(self.config, opened, options, frames=self._frames, progress=progress)
        if built is not None:
            # a server that starts on the release folds only the events after the build
            self.keep_snapshot()
        return built

    @property
    def release(self) -> LoadedRelease:
        """The promoted release; follows each promotion and rollback, by any process."""
        return self.session.release

    @property
    def overlay(self) -> Overlay:
        """Live state: what events changed since the release."""
        return self.session.overlay

    def publish(
        self,
        release_id: str | None = None,
        *,
        users: int | None = None,
        part: Part | None = None,
        progress: Progress = quiet,
    ) -> int:
        """Precompute users' candidates and store them; returns the number of stored lists.

        A stopped run resumes. The candidates of releases that are not in use are deleted.

        Args:
            users: at most so many, the latest active first; None = all.
            part: only the users of this part; None = all.

        Raises:
            StoreError: the store does not answer, or is full.
            ShardError: a process that serves a part of the indexes does not answer.
        """
        return self.session.publish(release_id, users=users, part=part, progress=progress)

    def keep_snapshot(self) -> None:
        """Write a checkpoint of the overlay; a new process then folds only later events."""
        self.session.live.write_checkpoint()

    def start_serving(self) -> None:
        """Start the caches, request log and threads of ``[serving]``, until ``close``."""
        self.session.live.warn_of_local_log()
        # goes on with the loaded release and the overlay: nothing is loaded twice
        self.session = ServingSession(self.session)

    def warm_up(self) -> None:
        """Load the promoted release, and all code that requests run."""
        self.session.warm_up()

    def close(self) -> None:
        """Write all queued rows, and close the event log."""
        self.session.close()

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
        """Recommendations for one user; an unknown user gets the fallback.

        Args:
            filters: column of the candidates = the value, or one of the values, that they have.
            cursor: ``next_cursor`` of the previous page.

        Raises:
            UnknownUserError: ``strict``, and the release does not have the user.
        """
        name = self.surface_name(surface)
        request = RecommendationRequest(
            name, k, context or {}, exclude, filters or {}, cursor=cursor, explain=explain
        )
        return self.recommend_many([user_id], request, strict=strict)[0]

    def recommend_many(
        self,
        user_ids: Sequence[Identifier],
        question: RecommendationRequest,
        *,
        strict: bool = False,
    ) -> list[RecommendationResponse]:
        """Recommendations for many users in one batch."""
        return self.session.answer(user_ids, question, strict=strict)

    def why_not(
        self,
        user_id: Identifier,
        candidate_id: Identifier,
        surface: str | None = None,
        k: int | None = None,
        *,
        context: Mapping[str, str] | None = None,
    ) -> WhyNot:
        """The stage and rule that keep a candidate from a user's recommendations.

        Raises:
            UnknownUserError, UnknownItemError: the release does not have one of them.
        """
        from nextedge.serving.why_not import why_not

        request = RecommendationRequest(self.surface_name(surface), k, context or {})
        return why_not(self.release, self.overlay, user_id, candidate_id, request)

    def recommend_all(
        self, question: RecommendationRequest, progress: Progress = quiet, part: Part | None = None
    ) -> Iterator[list[RecommendationResponse]]:
        """Recommendations for every user of the release, or of one part, batch by batch."""
        return self.session.answer_all(question, progress, part)

    def surface_name(self, name: str | None) -> str:
        """The name of a surface, or of the only one; raises UnknownSurfaceError for another."""
        return self.session.surface_name(name)

    def record(self, events: Raw | Iterable[Raw]) -> int:
        """Store events durably, except those of erased users; returns the number of new ones.

        Raises:
            EventError: an event does not fit its schema; none is stored.
        """
        return self.session.recorder.record(events)

    def record_each(self, events: Iterable[Raw]) -> Recorded:
        """Store the events that fit their schemas, durably; returns a reason for each of the others."""
        return self.session.recorder.record_each(events)

    def forget(self, user_id: Identifier) -> Erased:
        """Erase all data of a user, now and for every later build; a stopped run may run again.

        Raises:
            BuildLockedError: a build is running; wait for its end.
            StorageError: a file cannot be written, or the store of candidates does not answer.
        """
        return self.session.forget(user_id)

    def parity(self, queries: int = 200) -> list[ParityReport]:
        """Per surface, compare candidates, features and scores of single requests with a batch's."""
        from nextedge.evaluation.parity import check_parity

        now = int(time.time() * 1e6)
        surfaces = self.release.surfaces.items()
        return [check_parity(surface.line, name, now, queries) for name, surface in surfaces]

    def replay(self, most: int = 1000) -> list[ReplayReport]:
        """Per surface, compute logged features of the promoted release again and compare them.

        Args:
            most: compare at most so many logged requests of a surface, the latest.
        """
        from nextedge.serving.replay import replay_requests

        return replay_requests(self.release, self.config, most)

    def replay_events(self, since: str) -> EventsReplayed:
        """Fold the event log again, and deliver events again to its groups of consumers.

        Args:
            since: a time, as ``2026-01-31T12:00:00Z``, or a position of the log.

        Raises:
            InputError: ``since`` is neither.
            LiveStateError, StorageError: the log or the folder cannot be read or written.
        """
        from nextedge.events.replay import replay_events

        # folded into an empty overlay: requests go on with the current one
        checkpoints = self.session.live.checkpoints
        return replay_events(self.overlay.log, checkpoints, self.overlay.emptied, since)

    def evaluation(self, release_id: str | None = None) -> dict[str, Any]:
        """Per surface, the evaluation report of a release, as JSON values."""
        release = self.releases.get(release_id) if release_id else self.releases.current()[0]
        # the report's file alone: a loaded release would map arrays and load models
        folder = release.path / "surfaces"
        return {
            name: json.loads((folder / name / "evaluation.json").read_text())
            for name in release.surfaces
        }
