"""Forgetting a person: out of the state folder, every byte, and out of every later build.

The order lets a run be stopped anywhere: first the hash that keeps builds from reading the
person again, then what is served, and only then the events that held their blocks.
"""

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
    """What a run of ``forget`` changed: nothing, where the person was not known.

    Attributes:
        releases: written anew without the person.
        events: taken out of the event log.
        requests: taken out of the request log, or left with an empty place.
    """

    releases: int
    events: int
    requests: int

    def to_json(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)


def forget(
    state: Path, releases: Releases, log: LiveLog, requests: RequestLog, user_id: Identifier
) -> Erased:
    """Forget a person. Stopped in the middle, it is run again to its end.

    Raises:
        BuildLockedError: a build is running, which would write them anew.
        StorageError: the disk refuses, or another process did not let go of a file in time.
    """
    with releases.building(), writing(state):
        ErasedUsers(state).add(user_id)
        releases.announce_erased_users()
        erased = erase_from_releases(releases, user_id)
        releases.clear_work()
        for told in (state / "training").glob("*.json"):
            if str(user_id) in told.read_text():
                told.unlink()
        doomed = [position for position, event in log.read() if _names(event, str(user_id))]
        log.purge(doomed)
        checkpoints = Checkpoints(state / OVERLAY)
        with checkpoints.lock():  # one that is being written may have been folded before the purge
            checkpoints.drop()
        return Erased(erased, len(doomed), requests.forget())


def _names(event: Event, user: str) -> bool:
    """Whether an event holds the id anywhere but as that of an item."""
    fields = event.model_dump(exclude={"item_id", "timestamp", "type"})
    return _holds(fields, user)


def _holds(value: Any, user: str) -> bool:
    if isinstance(value, Mapping):
        return any(_holds(part, user) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_holds(part, user) for part in value)
    return str(value) == user
