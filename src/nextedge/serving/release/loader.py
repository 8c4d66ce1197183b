"""Loads a release by its id: checks files, reaches indexes, merges live edges into its graphs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

from nextedge.config import Config
from nextedge.errors import LiveStateError, StorageError
from nextedge.events.logs.log import open_live_log
from nextedge.events.logs.sqlite.log import FILE
from nextedge.events.state.checkpoint import OVERLAY, Checkpoints
from nextedge.events.state.checkpoint_writer import write_checkpoint
from nextedge.events.state.overlay import Overlay
from nextedge.releases.repository import Releases
from nextedge.serving.release.live_edges import with_live_edges
from nextedge.serving.release.loaded import LoadedRelease
from nextedge.serving.shards.client import ShardClient

_log = logging.getLogger("nextedge")


class LiveState:
    """The overlay of one tenant's event log, which opens at first use, and its checkpoints."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.checkpoints = Checkpoints(config.state_path / OVERLAY)
        if config.events.log is not None:  # a wrong URL is an error now, not at the first event
            open_live_log(config).close()

    @cached_property
    def overlay(self) -> Overlay:
        """Live state: all that events changed since the release."""
        return self._new_overlay()

    def write_checkpoint(self) -> None:
        """Write a checkpoint of the overlay; a new process then folds only later events."""
        if self.config.events.log is None and not (self.config.state_path / FILE).exists():
            return  # no event was ever recorded
        overlay = self._new_overlay()
        try:
            write_checkpoint(lambda: overlay, self.checkpoints)
        except (StorageError, LiveStateError) as error:  # the log has every event
            _log.warning("no snapshot of the overlay: %s", error)
        finally:
            overlay.log.close()

    def warn_of_local_log(self) -> None:
        """Warn if releases are in a bucket, but events on this machine alone."""
        if self.config.state_url is not None and self.config.events.log is None:
            _log.warning(
                "state = %r and no events.log: events are kept in %s, on this machine alone; for "
                'several machines set events.log = "redis://…"',
                self.config.state_url,
                self.config.state_path,
            )

    def close(self) -> None:
        """Close the event log, if it was opened."""
        if "overlay" in self.__dict__:
            self.overlay.log.close()

    def _new_overlay(self) -> Overlay:
        days = max((surface.shown_days for surface in self.config.surfaces.values()), default=0.0)
        return Overlay(open_live_log(self.config), self.checkpoints, days)


@dataclass(frozen=True)
class ReleaseLoader:
    """Opens releases of one tenant for requests.

    Attributes:
        repository: the releases.
        live: events since a release.
        shards: the processes that serve index shards; None searches in this process.
    """

    config: Config
    repository: Releases
    live: LiveState
    shards: ShardClient | None

    def load(self, release_id: str | None = None) -> LoadedRelease:
        """Open a release by its id, or the promoted one, for requests."""
        if release_id is None:
            release, refused = self.repository.current()
            for fault in refused:
                _log.warning(fault)
        else:
            release = self.repository.get(release_id)
            # ``current`` verifies the promoted release; others are verified here
            self.repository.verify(release)
        if self.shards is not None:
            # before the swap, so a promotion leaves no part of an index out
            for fault in self.shards.open_release(release.id):
                _log.warning("release %s: shards at %s", release.id, fault)
        return self.over_live_edges(LoadedRelease(release, self.config, self.shards))

    def over_live_edges(self, release: LoadedRelease) -> LoadedRelease:
        """The release with the current edges; unchanged if the log cannot be read."""
        if not self.config.events.live_graph:
            return release
        try:
            self.live.overlay.catch_up()
        except LiveStateError:
            # edges may be late: every request leaves out what must not be shown
            return release
        return with_live_edges(release, self.live.overlay)
