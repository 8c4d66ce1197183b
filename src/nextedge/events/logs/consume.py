"""Consume events of a group: poll, handle a batch, commit."""

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
_POLL_SECONDS = 0.2  # a loop checks at least so often whether it must stop
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0


class ConsumeLoop:
    """Passes a group's events to ``handle``, in order and at least once.

    After a crash, a failure or a change of the consumer, events come again: ``handle`` must be
    idempotent by event id. An unreadable event, or one for which ``handle`` raises ``EventError``,
    becomes a dead letter; the rest of its batch is handled. After any other failure the loop commits
    nothing and receives the events again after a pause, which grows with each failure.

    Args:
        handle: called with the events of a batch; without relayed events if ``relayed`` is false.
    """

    def __init__(
        self, log: Log, group: str, handle: Handle, *, batch: int = 1000, relayed: bool = True
    ) -> None:
        self.log = log
        self.group = group
        self.handled = self.rejected = self.failures = 0  # since the start
        self._handle = handle
        self._batch = batch
        self._relayed = relayed
        self._failed = 0  # failures in a row
        self._logged = ""

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set."""
        while not stop.is_set():
            try:
                with self.log.consumer(self.group) as consumer:
                    while not stop.is_set():
                        self._turn(consumer)
            except Exception as error:
                # a new consumer receives the uncommitted events again
                self._log_fault(error)
                stop.wait(self._pause())

    def _turn(self, consumer: Consumer) -> None:
        polled = consumer.poll(self._batch, _POLL_SECONDS)
        if polled:
            faults = [(d, d.fault or "unreadable") for d in polled if d.event is None]
            readable = [d for d in polled if d.event is not None]
            faults += self._handle_all([d for d in readable if self._relayed or not d.relayed])
            for delivery, reason in faults:
                consumer.reject(delivery, reason)
            consumer.commit()
            self.handled += len(polled) - len(faults)
            self._count_rejected(faults)
        if self._failed:
            _log.info("events of group %r are consumed again", self.group)
            self._failed, self._logged = 0, ""

    def _handle_all(self, deliveries: Sequence[Delivery]) -> list[tuple[Delivery, str]]:
        """Handle a batch; returns refused deliveries and reasons."""
        events = [delivery.event for delivery in deliveries if delivery.event is not None]
        if not events:
            return []
        try:
            self._handle(events)
        except EventError as error:
            if len(events) == 1:
                return [(deliveries[0], str(error))]
            # halving isolates the refused events in few calls, without handling one at a time
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

    def _log_fault(self, error: Exception) -> None:
        self.failures += 1
        self._failed += 1
        fault = f"{type(error).__name__}: {error}"
        if fault != self._logged:  # once a fault, not at every attempt
            _log.error("events of group %r wait: %s", self.group, fault)
            self._logged = fault

    def _pause(self) -> float:
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self._failed, 16))
        # random, so that consumers that failed together do not all come back at once
        return random.uniform(longest / 2, longest)
