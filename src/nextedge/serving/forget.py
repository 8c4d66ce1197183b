"""Erasure of a user: from all files of the state folder, and from every later build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nextedge.data.erased_users import ErasedUsers
from nextedge.events.event import Event
from nextedge.events.logs.log import LiveLog
from nextedge.events.request_log import RequestLog
from nextedge.events.state.checkpoint import OVERLAY, Checkpoints
from nextedge.releases.erasure import erase_from_releases
from nextedge.releases.repository import Releases
from nextedge.storage.files import writing
from nextedge.types import Identifier


@dataclass(frozen=True)
class Erased:
    """The number of changes of one ``forget``; zeros for an unknown user.

    Attributes:
        releases: rewritten without the user.
        events: deleted from the event log.
        requests: deleted from the request log, or left without the user as a candidate.
    """

    releases: int
    events: int
    requests: int

    def to_json(self) -> dict[str, int]:
        """The fields as JSON values."""
        return asdict(self)


def forget(
    state: Path, releases: Releases, log: LiveLog, requests: RequestLog, user_id: Identifier
) -> Erased:
    """Erase a user; after an interruption, run it again.

    Raises:
        BuildLockedError: a build is running, which would write the user's data again.
        StorageError: a file cannot be written, or another process locks it for too long.
    """
    # The order allows an interruption anywhere: first no build reads the user again, then no release
    # shows them, and only then their events go, which have their blocks.
    with releases.building(), writing(state):
        ErasedUsers(state).add(user_id)
        releases.announce_erased_users()
        erased = erase_from_releases(releases, user_id)
        releases.clear_work()
        for report in (state / "training").glob("*.json"):
            if str(user_id) in report.read_text():  # a build's error may quote an id
                report.unlink()
        positions = [position for position, event in log.read() if _names(event, str(user_id))]
        log.purge(positions)
        checkpoints = Checkpoints(state / OVERLAY)
        with checkpoints.lock():  # one that is being written may have been folded before the purge
            checkpoints.drop()
        return Erased(erased, len(positions), requests.forget())


def _names(event: Event, user: str) -> bool:
    """Whether an event has the id in any field but that of its item."""
    return _contains(event.model_dump(exclude={"item_id", "timestamp", "type"}), user)


def _contains(value: Any, user: str) -> bool:
    if isinstance(value, Mapping):
        return any(_contains(part, user) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_contains(part, user) for part in value)
    return str(value) == user
