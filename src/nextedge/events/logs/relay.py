"""Relay events between the live log and a broker, in both directions."""

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

TO_BROKER = "to-broker"  # the live log's group whose events wait for the broker
_STOP_SECONDS = 10.0
Admit = Callable[[Sequence[Event]], Sequence[Event]]


class Relay(ConsumeLoop):
    """Consumes one log and appends to another, at least once, each user's events in order.

    Args:
        group: of the source.
        admit: selects the events that the target takes; raises EventError to refuse one.
    """

    def __init__(self, source: Log, target: Log, group: str, admit: Admit = list) -> None:
        super().__init__(source, group, self._pass_on, relayed=False)
        self.target = target
        self._admit = admit

    def _pass_on(self, events: Sequence[Event]) -> None:
        # The mark keeps an event from being sent back to where it came from. It is no field of
        # the event, which any client could set.
        self.target.append(self._admit(events), relayed=True)


class BrokerRelays:
    """Two threads that relay between a live log and a broker.

    One process of those with the same groups relays at a time.
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
        """Stop both threads; the events that they did not relay wait in their log."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        self._broker.close()


def relays_to_broker(live: LiveLog, config: Config, admit: Admit) -> BrokerRelays | None:
    """Start both relays; None without a broker."""
    if config.events.broker is not None:
        return BrokerRelays(live, config, admit)
    with suppress(StorageError):  # without the group no event waits for a broker that is gone
        if TO_BROKER in live.groups():
            live.drop(TO_BROKER)
    return None


def group_at_broker(config: Config) -> str:
    """Name of a live log's group at the broker, the same in all its processes."""
    if config.events.log is not None:
        shared = urlsplit(config.events.log)
        named = f"{shared.hostname}:{shared.port}{shared.path}"
        return f"live-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
    # beside the local log, so that a new log has a new group and gets all events of the broker
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
