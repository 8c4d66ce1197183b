"""Which release answers whom: the promoted one, and beside it one on trial for a share of users.

While a server runs, a thread of low priority watches what is promoted, by any process. It loads
and warms up the new release, and then swaps it in: requests under way end on the release they
began with, and none waits.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nextedge.errors import NextEdgeError, ReleaseError
from nextedge.releases.pointers import Trial
from nextedge.releases.repository import Releases
from nextedge.serving.release.loaded import LoadedRelease
from nextedge.types import Identifier

_log = logging.getLogger("nextedge")
_SECONDS = 0.1
_NICE = 10
_RESTING = 4
"""Times as long as a renewal took is rested after it."""
_REST = 20
"""Looks after a swap until the last request on the old release has ended, as good as certainly."""
Stamp = tuple[str | None, int, Trial | None, int]


@dataclass(frozen=True)
class _Served:
    """What is served as of one look at the releases."""

    stamp: Stamp
    release: LoadedRelease
    trial: Trial | None = None
    tried: LoadedRelease | None = None

    def of_user(self, user_id: Identifier) -> tuple[LoadedRelease, str | None]:
        """The release that answers a user, and the arm of the trial that they are in."""
        if self.trial is None or self.tried is None:
            return self.release, None
        if in_trial(self.trial, user_id):
            return self.tried, f"{self.trial.name}:treatment"
        return self.release, f"{self.trial.name}:control"


class ServedReleases:
    """The served releases of one tenant.

    Args:
        load: makes a release ready for requests.
        swapped: told after every swap.
        renew: the same release over the edges of now; itself where they are as they were.
    """

    def __init__(
        self,
        releases: Releases,
        load: Callable[[str | None], LoadedRelease],
        swapped: Callable[[], None],
        renew: Callable[[LoadedRelease], LoadedRelease],
    ) -> None:
        self.releases = releases
        self._load = load
        self._swapped = swapped
        self._renew = renew
        self._renew_at = 0.0
        self._served: _Served | None = None
        self._refused: Stamp | None = None
        self._told = False
        self._stopping = threading.Event()
        self._watching: threading.Thread | None = None
        self._loading = threading.Lock()

    @property
    def current(self) -> LoadedRelease:
        """The promoted release.

        Raises:
            NoReleaseError: nothing was promoted yet.
            ReleaseError: nothing that was promoted can be used.
        """
        return self._now().release

    def of_user(self, user_id: Identifier) -> tuple[LoadedRelease, str | None]:
        """The release that answers a user, and the arm of the trial that they are in."""
        return self._now().of_user(user_id)

    def of_users(self, user_ids: Sequence[Identifier]) -> list[tuple[LoadedRelease, str | None]]:
        """``of_user`` of many, by one look at what is served."""
        served = self._now()
        return [served.of_user(user_id) for user_id in user_ids]

    @property
    def stamp(self) -> object:
        """Differs whenever what is served does."""
        try:
            return self._now().stamp
        except NextEdgeError:
            return None

    def watch(self) -> None:
        """Follow promotions in the background from now on."""
        with contextlib.suppress(NextEdgeError):  # the first may be built later
            self.refresh()
        self._watching = threading.Thread(target=self._follow, name="nextedge-watch", daemon=True)
        self._watching.start()

    def stop(self) -> None:
        """End the watch."""
        self._stopping.set()
        if self._watching is not None:
            self._watching.join()

    def _now(self) -> _Served:
        if self._watching is not None and self._served is not None:
            return self._served
        self.refresh()
        return self.renew()

    def renew(self) -> _Served:
        """Bring what is served to the live edges of now."""
        with self._loading:
            served = self._served
            assert served is not None
            release, tried = served.release, served.tried
            fresh = self._renew(release), None if tried is None else self._renew(tried)
            if fresh != (release, tried):
                self._served = served = replace(served, release=fresh[0], tried=fresh[1])
        return served

    def _renew_in_turn(self) -> None:
        """Renew, at most so much of the time that requests keep nearly all of a core."""
        began = time.monotonic()
        if self._served is None or began < self._renew_at:
            return
        self.renew()
        took = time.monotonic() - began
        self._renew_at = began + took + _RESTING * took

    def _follow(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # where threads have no priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        served, rest = self._served, 0
        while not self._stopping.wait(_SECONDS):
            if self._served is not served:
                served, rest = self._served, _REST
            rest -= 1
            if rest == 0:
                gc.collect()  # what was served before holds itself in cycles, and much memory
            try:
                self.refresh()
                self._renew_in_turn()
            except NextEdgeError as error:
                _log.warning("the release that was promoted is not served: %s", error)
            except Exception:  # a watch that ends would leave the server with what it has for ever
                _log.exception("watching for releases")

    def refresh(self) -> _Served:
        """Look at the releases now, and load what has changed."""
        stamp = self._stamp()
        served = self._served
        if served is not None and stamp in (served.stamp, self._refused):
            return served
        with self._loading:
            served = self._served
            if served is not None and stamp in (served.stamp, self._refused):
                return served
            self._refused = stamp
            fresh = self._loaded(stamp, served)
            self._served, self._refused = fresh, None
        self._swapped()
        return fresh

    def _loaded(self, stamp: Stamp, served: _Served | None) -> _Served:
        same = served is not None and served.stamp[:2] == stamp[:2]
        release = served.release if served is not None and same else self._load(None)
        trial = stamp[2]
        if trial is None:
            return _Served(stamp, release)
        try:
            return _Served(stamp, release, trial, self._load(trial.release))
        except NextEdgeError as error:
            _log.warning("the release on trial is not served: %s", error)
            return _Served(stamp, release)

    def _stamp(self) -> Stamp:
        """Differs whenever other releases are to be served, or their files were replaced."""
        current, trial = self.releases.current_id(), self._trial()
        versions = [
            self.releases.version(name) if name else 0
            for name in (current, trial and trial.release)
        ]
        return current, versions[0], trial, versions[1]

    def _trial(self) -> Trial | None:
        """The trial; none where its file cannot be read, which must not stop what is served."""
        try:
            found = self.releases.trial()
        except ReleaseError as error:
            if not self._told:
                _log.warning("no trial: %s", error)
            self._told = True
            return None
        self._told = False
        return found


def in_trial(trial: Trial, user_id: Identifier) -> bool:
    """Whether a user is among the share; the same on every replica and at every request."""
    digest = hashlib.blake2b(f"{trial.name}\0{user_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < trial.share * 2**64
