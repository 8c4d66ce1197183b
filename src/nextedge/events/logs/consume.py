"""The one loop in which events are consumed: poll, handle a batch, commit."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence

from nextedge.errors import EventError
from nextedge.events.event import Event
from nextedge.events.logs.log import Consumer, Delivery, Log

Handle = Callable[[Sequence[Event]], None]
_log = logging.getLogger("nextedge.events")
_POLL_SECONDS = 0.2
"""How long a loop waits for events before it looks whether it is to stop."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0


class ConsumeLoop:
    """Hands a group's events to ``handle``, in order and at least once.

    After a crash, a failure or a change of the consumer, events come again that were handled
    before: ``handle`` must be idempotent by event id. What cannot be read, and what ``handle``
    raises ``EventError`` for, goes to the dead letters with the reason; the other events of its
    batch are handled. On any other failure nothing is committed, and after a pause, longer each
    time, the events come again.

    Args:
        handle: given the events of a batch, without those that came from another log if
            ``relayed`` is false.
    """

    def __init__(
        self, log: Log, group: str, handle: Handle, *, batch: int = 1000, relayed: bool = True
    ) -> None:
        self.log = log
        self.group = group
        self.handled = self.rejected = self.failures = 0
        """Events, events and attempts, since the start."""
        self._handle = handle
        self._batch = batch
        self._relayed = relayed
        self._failed = 0
        """How many attempts have failed in a row."""
        self._told = ""

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set."""
        while not stop.is_set():
            try:
                with self.log.consumer(self.group) as consumer:
                    while not stop.is_set():
                        self._turn(consumer)
            except Exception as error:
                # A new consumer gets all again that was not committed.
                self._tell(error)
                stop.wait(self._pause())

    def _turn(self, consumer: Consumer) -> None:
        polled = consumer.poll(self._batch, _POLL_SECONDS)
        if polled:
            good = [each for each in polled if each.event is not None]
            faults = [(each, each.fault or "unreadable") for each in polled if each.event is None]
            faults += self._handle_all([each for each in good if self._relayed or not each.relayed])
            for delivery, reason in faults:
                consumer.reject(delivery, reason)
            consumer.commit()
            self.handled += len(polled) - len(faults)
            self._count_rejected(faults)
        if self._failed:
            _log.info("events of group %r are consumed again", self.group)
            self._failed, self._told = 0, ""

    def _handle_all(self, deliveries: Sequence[Delivery]) -> list[tuple[Delivery, str]]:
        """Handle a batch; returns what was refused, and why: halved until it is found."""
        events = [each.event for each in deliveries if each.event is not None]
        if not events:
            return []
        try:
            self._handle(events)
        except EventError as error:
            if len(events) == 1:
                return [(deliveries[0], str(error))]
            half = len(deliveries) // 2
            return self._handle_all(deliveries[:half]) + self._handle_all(deliveries[half:])
        return []

    def _count_rejected(self, faults: Sequence[tuple[Delivery, str]]) -> None:
        self.rejected += len(faults)
        if faults:
            _log.warning(
                "group %r gave up %d events as dead letters, the first at %s",
                self.group,
                len(faults),
                faults[0][0].position,
            )

    def _tell(self, error: Exception) -> None:
        """Log a fault when it begins, and not each time it is met."""
        self.failures += 1
        self._failed += 1
        told = f"{type(error).__name__}: {error}"
        if told != self._told:
            _log.error("events of group %r wait: %s", self.group, told)
            self._told = told

    def _pause(self) -> float:
        """Seconds until the next attempt: of many that failed together, not all come back at once."""
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self._failed, 16))
        return random.uniform(longest / 2, longest)
