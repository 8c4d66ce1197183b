"""What answers the requests of one tenant in one process, and owns all that it opens.

A ``Session`` computes every request anew, as commands and notebooks need it. A ``ServingSession``
adds the caches, the request log and the background threads of a server.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nextedge.config import Config
from nextedge.data.contact_columns import UsersIdentifiers
from nextedge.data.partition import Part
from nextedge.engines.base import Engine
from nextedge.errors import (
    NextEdgeError,
    ShardError,
    UnknownSurfaceError,
    UnknownUserError,
    nearest,
)
from nextedge.events.logs.relay import relays_to_broker
from nextedge.events.request_log import RequestLog
from nextedge.events.state.checkpoint_writer import CheckpointWriter
from nextedge.events.state.overlay import Overlay
from nextedge.progress import Progress
from nextedge.releases.shared import open_releases
from nextedge.serving.active_release import ActiveReleases, WatchedReleases, warm_up
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.precomputed import PublishedCandidates, published_candidates, unpublish
from nextedge.serving.caches.ranked_list import RankedList
from nextedge.serving.caches.shared_lru import ranked_cache
from nextedge.serving.contacts.address_books import Contacts
from nextedge.serving.event_recorder import EventRecorder
from nextedge.serving.forget import Erased, forget
from nextedge.serving.messages import RecommendationRequest, RecommendationResponse
from nextedge.serving.publish import publish
from nextedge.serving.release.loaded import LoadedRelease
from nextedge.serving.release.loader import LiveState, ReleaseLoader
from nextedge.serving.request import answer
from nextedge.serving.shards.client import LEFT_OUT, shard_client
from nextedge.types import Identifier

_BATCH = 256
_log = logging.getLogger("nextedge")


class Session:
    """Loaded releases, live state and contacts of one tenant, without caches or threads."""

    cache: Cache[RankedList] | None = None
    """Of ranked lists; None computes every list anew."""
    published: PublishedCandidates | None = None
    """Precomputed candidates; None retrieves them at every request."""
    request_log: RequestLog | None = None
    """Where impressions are logged; None logs nothing."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shards = shard_client(config)
        """The processes with parts of the indexes; None where this process searches itself."""
        self.live = LiveState(config)
        self.loader = ReleaseLoader(config, open_releases(config), self.live, self.shards)
        self.contacts = Contacts(config.state_path, config.onboarding, config.tenant)
        self.active = ActiveReleases(self.loader)
        self.recorder = EventRecorder(config, self.live, self.active)

    @property
    def release(self) -> LoadedRelease:
        """The promoted release."""
        return self.active.current

    @property
    def overlay(self) -> Overlay:
        """Live state since the release."""
        return self.live.overlay

    def answer(
        self,
        user_ids: Sequence[Identifier],
        request: RecommendationRequest,
        *,
        strict: bool = False,
    ) -> list[RecommendationResponse]:
        """The recommendations of some users, each by the release that answers them.

        Raises:
            UnknownUserError: ``strict``, and a release does not know its user.
        """
        arms = self.active.of_users(user_ids)
        if len(arms) == 1:
            return self._answer_arm(arms[0], user_ids, request, strict)
        answers: dict[int, RecommendationResponse] = {}
        for arm in dict.fromkeys(arms):  # several only while there is a trial
            rows = [row for row, other in enumerate(arms) if other == arm]
            users = [user_ids[row] for row in rows]
            answers |= zip(rows, self._answer_arm(arm, users, request, strict), strict=True)
        return [answers[row] for row in range(len(user_ids))]

    def _answer_arm(
        self,
        arm: tuple[LoadedRelease, str | None],
        user_ids: Sequence[Identifier],
        request: RecommendationRequest,
        strict: bool,
    ) -> list[RecommendationResponse]:
        release, experiment = arm
        if strict:
            self._check_known(release, user_ids)
        answers = answer(
            release,
            self.overlay,
            user_ids,
            request,
            log=self.request_log,
            cache=self.cache,
            published=self.published,
            contacts=self.contacts,
        )
        if experiment is None:
            return answers
        return [replace(response, experiment=experiment) for response in answers]

    def _check_known(self, release: LoadedRelease, user_ids: Sequence[Identifier]) -> None:
        self.overlay.catch_up()
        positions = release.entities.users.positions(self.overlay.query_ids(user_ids))
        for user, position in zip(user_ids, positions, strict=True):
            if position < 0:
                raise UnknownUserError(
                    f"unknown user {user!r}: not in release {release.id}, which knows "
                    f"{len(release.entities.users):,} users"
                )

    def answer_all(
        self, request: RecommendationRequest, progress: Progress, part: Part | None
    ) -> Iterator[list[RecommendationResponse]]:
        """The recommendations of every user of the release, or of a part of them, batch by batch.

        Raises:
            ShardError: a process that holds a part of the indexes does not answer.
        """
        users = self.release.entities.users
        for start in range(0, len(users), _BATCH):
            stop = min(start + _BATCH, len(users))
            progress("recommend", start, len(users))
            # an erased user has a position, but no id
            ids = users.identifiers(range(start, stop)).drop_null().to_pylist()
            if part is not None:
                ids = [user for user, ours in zip(ids, part.holds(ids), strict=True) if ours]
            if ids:
                yield _complete(self.answer(ids, request))
        progress("recommend", len(users), len(users))

    def surface_name(self, name: str | None) -> str:
        """The name of a surface, or of the only one.

        Raises:
            UnknownSurfaceError: there is no such surface, or no name was given and there are several.
        """
        if name is not None:
            return self.release.surface(name).name
        names = list(self.release.surfaces)
        if len(names) != 1:
            raise UnknownSurfaceError(f"which surface? {nearest('', names)}")
        return names[0]

    def publish(
        self, release_id: str | None, *, users: int | None, part: Part | None, progress: Progress
    ) -> int:
        """Store the candidates of users ahead; returns the number of stored lists."""
        release = self.release if release_id is None else self.loader.load(release_id)
        in_use = self.loader.repository.in_use()
        return publish(
            release, self.config, most=users, part=part, in_use=in_use, progress=progress
        )

    def hash_identifiers(self, engine: Engine, frames: Mapping[str, Any]) -> None:
        """Store the identifiers of the users table as hashes, where the settings name columns."""
        if not self.config.onboarding.identifier_columns:
            return
        identifiers = UsersIdentifiers(self.config, engine, frames, self.contacts.hash_of)
        self.contacts.replace_table(identifiers.rows())
        if identifiers.refused:
            _log.warning("users: %d identifiers are no e-mail or +number", identifiers.refused)

    def warm_up(self) -> None:
        """Load the promoted release and all code that requests need."""
        warm_up(self.release, self.loader)

    def store_counts(self) -> dict[str, Mapping[str, int]]:
        """Reads and writes of the stores of ranked lists and of candidates, by their outcome."""
        stores = {"ranked": self.cache, "candidates": self.published}
        return {name: store.counts() for name, store in stores.items() if store is not None}

    def forget(self, user_id: Identifier) -> Erased:
        """Erase a person from the state folder and from every later build."""
        requests = self.request_log or new_request_log(self.config)
        repository = self.loader.repository
        erased = forget(self.config.state_path, repository, self.overlay.log, requests, user_id)
        self.contacts.forget(user_id)
        unpublish(self.config)
        with contextlib.suppress(NextEdgeError):  # there may be no release yet
            self.active.refresh()  # its files were replaced
        return erased

    def close(self) -> None:
        """Close the event log, the contacts and the connections to shards."""
        self.active.stop()
        if self.shards is not None:
            self.shards.close()
        self.live.close()
        self.contacts.close()


class ServingSession(Session):
    """A session of a server: with caches, request log, relays, and threads that follow promotions.

    Args:
        before: the session that it replaces, whose release and live state it goes on with.
    """

    def __init__(self, before: Session) -> None:
        config = self.config = before.config
        self.shards, self.live, self.loader = before.shards, before.live, before.loader
        self.contacts = before.contacts
        self.cache = ranked_cache(config)
        self.published = published_candidates(config)
        if config.serving.log_requests:
            self.request_log = new_request_log(config)
        self.active: ActiveReleases = WatchedReleases(
            self.loader, before.active, self.cache, self.published
        )
        self.recorder = EventRecorder(config, self.live, self.active)
        self._relays = relays_to_broker(self.overlay.log, config, self.recorder.admitted)
        self._checkpoints = CheckpointWriter(self.overlay, self.overlay.emptied)

    def close(self) -> None:
        """Write all that is queued, stop the threads, and close what is open."""
        # first, as its thread refreshes lists in the stores that close below
        self.active.stop()
        if self._relays is not None:
            self._relays.close()
        self._checkpoints.stop()
        if self.request_log is not None:
            self.request_log.close()
        for store in (self.cache, self.published):
            if store is not None:
                store.close()
        super().close()  # last: relays and checkpoints read the log that this closes


def _complete(answers: list[RecommendationResponse]) -> list[RecommendationResponse]:
    """The answers, where no part of an index was left out: a file of all users has no others."""
    for name in answers[0].degraded:
        if name.startswith(LEFT_OUT):
            raise ShardError(
                f"{name}: part {name.removeprefix(LEFT_OUT)} of serving.shards does not answer; "
                "start it with 'nextedge serve-shard', then run this again"
            )
    return answers


def new_request_log(config: Config) -> RequestLog:
    """The request log of a tenant."""
    people = [name for name, surface in config.surfaces.items() if surface.kind == "people"]
    return RequestLog(config.state_path, config.serving, people)
