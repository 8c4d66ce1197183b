"""The active releases: the promoted one, and a canary for a share of the users.

A server follows promotions by a thread of low priority, which loads the new release, warms it up
and swaps it in. A request ends on the release with which it began, and none waits.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nextedge.errors import NextEdgeError, ReleaseError
from nextedge.releases.pointers import Trial
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.precomputed import PublishedCandidates
from nextedge.serving.caches.ranked_list import RankedList
from nextedge.serving.messages import RecommendationRequest
from nextedge.serving.publish import derive, refresh_lists
from nextedge.serving.release.loaded import LoadedRelease
from nextedge.serving.release.loader import ReleaseLoader
from nextedge.serving.request import answer
from nextedge.types import Identifier

_log = logging.getLogger("nextedge")
_LOOK_SECONDS = 0.1
_NICE = 10
_PAUSE_SHARE = 4
"""Pause after a merge of live edges, as a multiple of its time."""
_LOOKS_BEFORE_COLLECTION = 20
"""By then the last request on the old release has almost certainly ended."""
Stamp = tuple[str | None, int, Trial | None, int]


@dataclass(frozen=True)
class Active:
    """The active releases at one look at the repository."""

    stamp: Stamp
    release: LoadedRelease
    trial: Trial | None = None
    canary: LoadedRelease | None = None

    def of_user(self, user_id: Identifier) -> tuple[LoadedRelease, str | None]:
        """The release that answers a user, and the user's arm of the trial."""
        if self.trial is None or self.canary is None:
            return self.release, None
        if in_trial(self.trial, user_id):
            return self.canary, f"{self.trial.name}:treatment"
        return self.release, f"{self.trial.name}:control"


class ActiveReleases:
    """The active releases of one tenant; each access looks at the repository first."""

    def __init__(self, loader: ReleaseLoader) -> None:
        self.loader = loader
        self._active: Active | None = None
        self._refused: Stamp | None = None
        self._trial_fault_logged = False
        self._loading = threading.Lock()

    @property
    def current(self) -> LoadedRelease:
        """The promoted release.

        Raises:
            NoReleaseError: no release was promoted yet.
            ReleaseError: the promoted release cannot be loaded.
        """
        return self.now().release

    @property
    def stamp(self) -> object:
        """A value that changes with the active releases."""
        try:
            return self.now().stamp
        except NextEdgeError:
            return None

    def now_or_none(self) -> Active | None:
        """The active releases; None if none can be loaded."""
        try:
            return self.now()
        except NextEdgeError:
            return None

    def of_users(self, user_ids: Sequence[Identifier]) -> list[tuple[LoadedRelease, str | None]]:
        """The release and the arm of the trial of each user, of one look."""
        active = self.now()
        return [active.of_user(user_id) for user_id in user_ids]

    def now(self) -> Active:
        """The active releases, with the current live edges."""
        self.refresh()
        return self.renew()

    def renew(self) -> Active:
        """Merge the current live edges into the graphs of the active releases."""
        # two threads would merge the same edges, each into a copy of the graphs
        with self._loading:
            active = self._active
            assert active is not None
            release, canary = active.release, active.canary
            live = self._over_live_edges(release)
            live_canary = None if canary is None else self._over_live_edges(canary)
            if (live, live_canary) != (release, canary):
                self._active = active = replace(active, release=live, canary=live_canary)
        return active

    def refresh(self) -> bool:
        """Load the promoted release and the canary if they changed; returns whether they did."""
        stamp = self._stamp()
        if self._is_known(stamp):
            return False
        with self._loading:
            if self._is_known(stamp):  # another thread has loaded it meanwhile
                return False
            self._refused = stamp  # stays after a failure: the next look does not load it again
            self._active = self._loaded(stamp, self._active)
            self._refused = None
        return True

    def stop(self) -> None:
        """Stop following promotions."""

    def _is_known(self, stamp: Stamp) -> bool:
        active = self._active
        return active is not None and stamp in (active.stamp, self._refused)

    def _load(self, release_id: str | None) -> LoadedRelease:
        return self.loader.load(release_id)

    def _over_live_edges(self, release: LoadedRelease) -> LoadedRelease:
        return self.loader.over_live_edges(release)

    def _loaded(self, stamp: Stamp, active: Active | None) -> Active:
        # a trial that begins or ends does not load the promoted release again
        same = active is not None and active.stamp[:2] == stamp[:2]
        release = active.release if active is not None and same else self._load(None)
        trial = stamp[2]
        if trial is None:
            return Active(stamp, release)
        try:
            return Active(stamp, release, trial, self._load(trial.release))
        except NextEdgeError as error:  # the promoted release answers without its canary
            _log.warning("the release on trial is not served: %s", error)
            return Active(stamp, release)

    def _stamp(self) -> Stamp:
        """The ids of the releases to serve, with the versions of their files."""
        repository = self.loader.repository
        current, trial = repository.current_id(), self._trial()
        # an erasure replaces the files of a release
        versions = [
            repository.version(name) if name else 0 for name in (current, trial and trial.release)
        ]
        return current, versions[0], trial, versions[1]

    def _trial(self) -> Trial | None:
        try:
            trial = self.loader.repository.trial()
        except ReleaseError as error:  # a damaged trial file must not stop the service
            if not self._trial_fault_logged:
                _log.warning("no trial: %s", error)
            self._trial_fault_logged = True
            return None
        self._trial_fault_logged = False
        return trial


class WatchedReleases(ActiveReleases):
    """Active releases that a background thread updates; a request never looks itself.

    Args:
        before: active releases that are loaded already.
        cache: of ranked lists; a swap clears it.
        published: precomputed candidates, which it refreshes where live edges change them.
    """

    def __init__(
        self,
        loader: ReleaseLoader,
        before: ActiveReleases | None = None,
        cache: Cache[RankedList] | None = None,
        published: PublishedCandidates | None = None,
    ) -> None:
        super().__init__(loader)
        self._active = None if before is None else before._active
        self._cache = cache
        self._published = published
        self._renew_at = 0.0
        self._stopping = threading.Event()
        with contextlib.suppress(NextEdgeError):  # the first release may be built later
            self.refresh()
        self._thread = threading.Thread(target=self._follow, name="nextedge-watch", daemon=True)
        self._thread.start()

    def now(self) -> Active:
        """The active releases that the thread loaded last."""
        return super().now() if self._active is None else self._active

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def refresh(self) -> bool:
        """Load the promoted release and the canary if they changed; returns whether they did."""
        swapped = super().refresh()
        if swapped and self._cache is not None:
            self._cache.clear()  # the keys name the release: nothing reads the old lists
        return swapped

    def _load(self, release_id: str | None) -> LoadedRelease:
        release = super()._load(release_id)
        # before the swap: else the first requests wait for compilation
        warm_up(release, self.loader)
        return release

    def _over_live_edges(self, release: LoadedRelease) -> LoadedRelease:
        live = super()._over_live_edges(release)
        if live is not release and release.live_as_of is not None:
            derive(live)
            if self._published is not None:
                most = self.loader.config.events.neighbors_refreshed
                refresh_lists(release, live, self._published, most)
        return live

    def _renew_in_turn(self) -> None:
        # pauses leave requests nearly all of a core
        began = time.monotonic()
        if self._active is None or began < self._renew_at:
            return
        self.renew()
        took = time.monotonic() - began
        self._renew_at = began + took + _PAUSE_SHARE * took

    def _follow(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # where threads have no priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        active, looks = self._active, 0
        while not self._stopping.wait(_LOOK_SECONDS):
            if self._active is not active:
                active, looks = self._active, _LOOKS_BEFORE_COLLECTION
            looks -= 1
            if looks == 0:
                gc.collect()  # the old release is in reference cycles, and large
            try:
                self.refresh()
                self._renew_in_turn()
            except NextEdgeError as error:
                _log.warning("the release that was promoted is not served: %s", error)
            except Exception:  # without the thread the server would keep this release for ever
                _log.exception("watching for releases")


def warm_up(release: LoadedRelease, loader: ReleaseLoader) -> None:
    """Answer a known and an unknown user, so that no request waits for what first use computes."""
    degree = release.snapshot.connections.degree + release.snapshot.engagements.degree
    if not len(degree):
        return
    overlay = loader.live.overlay
    busiest = release.entities.users.identifiers([int(degree.argmax())])[0].as_py()
    for name, surface in release.surfaces.items():
        for user in (busiest, "a stranger"):
            answer(release, overlay, [user], RecommendationRequest(name))
        surface.pace.expected_ms.clear()  # these times include compilation
        answer(release, overlay, [busiest], RecommendationRequest(name))


def in_trial(trial: Trial, user_id: Identifier) -> bool:
    """Whether a user is in the trial's share; the same on every replica and at every request."""
    # Python's ``hash`` differs between processes: a user would change arms.
    # With the trial's name, as each trial draws other users.
    digest = hashlib.blake2b(f"{trial.name}\0{user_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < trial.share * 2**64
