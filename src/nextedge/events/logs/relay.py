"""Carries events from one log to another: from the live log to a broker, and back."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nextedge.errors import StorageError
from nextedge.events.event import Event
from nextedge.events.logs.consume import ConsumeLoop
from nextedge.events.logs.log import LiveLog, Log, open_log

if TYPE_CHECKING:
    from nextedge.config import Config

TO_BROKER = "to-broker"
"""The group of the live log whose events wait for the broker."""
_STOP_SECONDS = 10.0
Admit = Callable[[Sequence[Event]], Sequence[Event]]


class Relay(ConsumeLoop):
    """Consumes one log and appends to another: at least once, each user's events in order.

    Events that a relay appended to the source are not sent on, and events are marked as relayed in
    the target, so that none is sent back to the broker that it came from.

    Args:
        group: of the source.
        admit: the events that the target takes; raises EventError for one that it must not have.
    """

    def __init__(self, source: Log, target: Log, group: str, admit: Admit = list) -> None:
        super().__init__(source, group, self._pass_on, relayed=False)
        self.target = target
        self._admit = admit

    def _pass_on(self, events: Sequence[Event]) -> None:
        # the mark is no field of the event: any client that records one could set it
        self.target.append(self._admit(events), relayed=True)


class BrokerRelays:
    """Both directions between a live log and a broker, each in a thread of this process.

    Of all processes with the same groups one relays at a time.
    """

    def __init__(self, live: LiveLog, config: Config, admit: Admit) -> None:
        self._broker = open_log(config.events.broker, config)
        self.outbound = Relay(live, self._broker, TO_BROKER)
        self.inbound = Relay(self._broker, live, group_at_broker(config), admit)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(relay,), name=relay.group, daemon=True)
            for relay in (self.outbound, self.inbound)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, relay: Relay) -> None:
        try:
            relay.run(self._stop)
        finally:
            for log in (relay.log, relay.target):
                log.close()

    def close(self) -> None:
        """Stop both; events that were not passed on wait in their log."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        self._broker.close()


def relays_to_broker(live: LiveLog, config: Config, admit: Admit) -> BrokerRelays | None:
    """Both relays, started; without a broker None, and no event waits for one."""
    if config.events.broker is not None:
        return BrokerRelays(live, config, admit)
    with suppress(StorageError):
        if TO_BROKER in live.groups():
            live.drop(TO_BROKER)
    return None


def group_at_broker(config: Config) -> str:
    """The broker's group of a live log, shared by all processes of that log.

    The name of a local log's group is kept beside it: a new log gets all events of the broker.
    """
    if config.events.log is not None:
        shared = urlsplit(config.events.log)
        named = f"{shared.hostname}:{shared.port}{shared.path}"
        return f"live-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
    path = config.state_path / "broker-group"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        group = f"live-{uuid.uuid4().hex[:16]}"
        partial = path.with_name(f"{path.name}.{group}")
        with partial.open("w") as file:
            file.write(group)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first
            os.link(partial, path)
        partial.unlink()
    return path.read_text()
