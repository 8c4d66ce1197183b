"""The Kafka log: a topic of events that other systems write and read."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nextedge.errors import LiveStateError, StorageError
from nextedge.events.event import Event
from nextedge.events.logs.kafka.address import KafkaAddress, parse_address
from nextedge.events.logs.kafka.cluster import ANSWER_SECONDS, KafkaCluster, TooLargeError
from nextedge.events.logs.kafka.consumer import GROUP_SETTINGS, KafkaConsumer
from nextedge.events.logs.kafka.messages import (
    Headers,
    body_of,
    delivery_of,
    headers_in,
    headers_of,
    key_of,
    produced_millis,
)
from nextedge.events.logs.log import BEGINNING, Consumer, DeadLetter, Delivery, Lag, Log, Position

if TYPE_CHECKING:
    from confluent_kafka import Consumer as Client
    from confluent_kafka import Message

    from nextedge.config import Config

_JOIN_SECONDS = 30.0  # a group may take so long to assign its partitions
_CUT = 64 * 1024  # bytes that stay of a dead letter which is too large for the topic


class KafkaLog(Log):
    """Events of one tenant in a topic; the events of a user are in one partition, in order.

    An event that is appended twice is in the topic twice; live logs count its id once.
    """

    name = "kafka"
    schemes = ("kafka",)

    def __init__(self, address: KafkaAddress, tenant: str, future_seconds: float) -> None:
        self.cluster = KafkaCluster(address, tenant)
        self._kafka = self.cluster.kafka
        self.topic = self.cluster.topic
        self._dead_letters = address.dead_letters
        self._future_millis = int(future_seconds * 1000)

    @classmethod
    def open(cls, url: str | None, config: Config) -> KafkaLog:
        address = parse_address(url or "", config.tenant)
        return cls(address, config.tenant, config.events.future_seconds)

    def append(self, events: Sequence[Event], *, relayed: bool = False) -> int:
        """See ``Log.append``; returns once every in-sync replica has all events.

        A broker ignores ``relayed``. An error says how many events are not stored; to append all
        of them again is safe.
        """
        if events:
            self.cluster.require(self.topic)
            rows = [(key_of(e), e.model_dump_json().encode(), headers_of(e)) for e in events]
            self.cluster.send(self.topic, rows)
        return len(events)

    def read(
        self, after: Position = BEGINNING, limit: int | None = None
    ) -> Iterator[tuple[Position, Event]]:
        """See ``Log.read``; ends at the events that are stored when it begins."""
        offsets = self._offsets(after)
        with self._reading() as client:
            bounds = self.cluster.bounds(client, self.topic)
        starts = {part: _start(offsets.get(part), *bounds[part]) for part in bounds}
        return self._read(starts, {part: high for part, (_, high) in bounds.items()}, limit)

    def _read(
        self, offsets: dict[int, int], ends: dict[int, int], limit: int | None
    ) -> Iterator[tuple[Position, Event]]:
        count = 0
        with self._reading() as client:
            for message in self.cluster.messages(client, self.topic, offsets, ends):
                if limit is not None and count >= limit:
                    return
                offsets[message.partition() or 0] = (message.offset() or 0) + 1
                if event := delivery_of(message).event:
                    count += 1
                    yield json.dumps(offsets), event

    def last_position(self) -> Position:
        with self._reading() as client:
            bounds = self.cluster.bounds(client, self.topic)
        if all(low == high for low, high in bounds.values()):
            return BEGINNING
        return json.dumps({partition: high for partition, (_, high) in bounds.items()})

    def _offsets(self, after: Position) -> dict[int, int]:
        try:
            return {int(key): int(value) for key, value in json.loads(after or "{}").items()}
        except (ValueError, TypeError, AttributeError):
            raise LiveStateError(
                f"{self.cluster.public_url}: {after!r} is no position of this log"
            ) from None

    def consumer(self, group: str) -> Consumer:
        self.cluster.require(self.topic)
        return KafkaConsumer(self.cluster, group, self._bury)

    def _bury(self, group: str, delivery: Delivery, reason: str) -> None:
        headers = {"group": group, "position": delivery.position, "reason": reason}
        encoded: Headers = {name: text.encode(errors="replace") for name, text in headers.items()}
        topic = self._dead_letters
        self.cluster.require(topic)
        try:
            self.cluster.send(topic, [(None, delivery.body, encoded)])
        except TooLargeError:
            cut = f"{reason} (cut: it has {len(delivery.body):,} bytes)"
            encoded["reason"] = cut.encode(errors="replace")
            self.cluster.send(topic, [(None, delivery.body[:_CUT], encoded)])

    def lag(self, group: str) -> Lag:
        """See ``Log.lag``; the age counts from the time at which the oldest was produced."""
        with self.cluster.querying(group) as client:
            starts, ends = {}, {}
            for partition, (low, high, committed) in self._progress(client).items():
                if (start := _start(committed, low, high)) < high:
                    starts[partition], ends[partition] = start, high
            oldest: dict[int, int] = {}
            for message in self.cluster.messages(client, self.topic, starts, ends):
                oldest.setdefault(message.partition() or 0, produced_millis(message))
                if len(oldest) == len(starts):
                    break
        waiting = sum(ends.values()) - sum(starts.values())
        since = min((millis for millis in oldest.values() if millis), default=None)
        age = 0.0 if since is None else max(0.0, time.time() - since / 1000)
        return Lag(waiting, age)

    def groups(self) -> list[str]:
        return sorted(
            group.removeprefix(self.cluster.prefix)
            for group in self.cluster.group_ids()
            if group.startswith(self.cluster.prefix)
        )

    def rewind(self, group: str, since_micros: int) -> None:
        """See ``Log.rewind``; sets each partition back to its first event that is not older.

        Raises:
            StorageError: the group's consumers are running; stop them first.
        """
        with self.cluster.querying(group) as client:
            progress = self._progress(client)
            # an event's time may be later than its message's by as much as the clock allows
            starts = self._since(client, progress, since_micros // 1000 - self._future_millis)
            first: dict[int, int] = {}
            for partition, (_, _, committed) in progress.items():
                start, end = {partition: starts[partition]}, {partition: committed}
                for message in self.cluster.messages(client, self.topic, start, end):
                    event = delivery_of(message).event
                    if event is not None and event.micros >= since_micros:
                        first[partition] = message.offset() or 0
                        break
        if first:
            self._move(group, first)

    def _move(self, group: str, offsets: Mapping[int, int]) -> None:
        """Commit offsets as the group's only member: Kafka refuses commits from outside it."""
        assigned: list[set[int]] = []
        until = time.monotonic() + _JOIN_SECONDS
        with self.cluster.querying(group, GROUP_SETTINGS) as client:
            client.subscribe(
                [self.topic],
                on_assign=lambda _, parts: assigned.append({part.partition for part in parts}),
            )
            while not assigned and time.monotonic() < until:
                client.poll(0.1)
            if not assigned or not offsets.keys() <= assigned[0]:
                raise StorageError(
                    f"{self.cluster.public_url}: group {group!r} has consumers that run, or did "
                    "seconds ago; stop them and try again"
                )
            moved = [self._kafka.TopicPartition(self.topic, *part) for part in offsets.items()]
            for part in client.commit(offsets=moved, asynchronous=False) or []:
                if part.error:
                    raise self.cluster.fault(part.error, f"group {group!r} was not moved")

    def _since(
        self, client: Client, progress: Mapping[int, tuple[int, int, int]], millis: int
    ) -> dict[int, int]:
        """Offsets by partition; every message before them was produced earlier."""

        def earliest(millis: int) -> dict[int, int]:
            key = self._kafka.TopicPartition
            wanted = [key(self.topic, part, max(0, millis)) for part in progress]
            offsets = client.offsets_for_times(wanted, ANSWER_SECONDS)
            return {part.partition: part.offset for part in offsets}

        # a broker without an index of times has no offset even since 1970: then read from the first
        indexed, wanted = earliest(0), earliest(millis)
        starts = {}
        for partition, (low, high, _) in progress.items():
            start = wanted[partition] if indexed[partition] >= 0 else low
            starts[partition] = start if start >= 0 else high
        return starts

    def _progress(self, client: Client) -> dict[int, tuple[int, int, int]]:
        """First, next and committed offset (-1001: none) of a group, by partition."""
        bounds = self.cluster.bounds(client, self.topic)
        parts = [self._kafka.TopicPartition(self.topic, partition) for partition in bounds]
        committed = client.committed(parts, ANSWER_SECONDS)
        return {part.partition: (*bounds[part.partition], part.offset) for part in committed}

    def dead_letters(self) -> list[DeadLetter]:
        topic = self._dead_letters
        with self.cluster.querying("reader") as client:
            missing = client.list_topics(topic, ANSWER_SECONDS).topics[topic].error
            if (
                missing is not None
                and missing.code() == self._kafka.KafkaError.UNKNOWN_TOPIC_OR_PART
            ):
                return []
            bounds = self.cluster.bounds(client, topic)
            starts = {partition: low for partition, (low, _) in bounds.items()}
            ends = {partition: high for partition, (_, high) in bounds.items()}
            messages = self.cluster.messages(client, topic, starts, ends)
            return sorted(map(_letter, messages), key=lambda letter: letter.micros)

    def close(self) -> None:
        self.cluster.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Client]:
        try:
            with self.cluster.querying("reader") as client:
                yield client
        except StorageError as error:
            raise LiveStateError(str(error)) from None


def _start(offset: int | None, low: int, high: int) -> int:
    # an offset out of bounds is of deleted messages, or of a topic that was deleted and recreated
    return offset if offset is not None and low <= offset <= high else low


def _letter(message: Message) -> DeadLetter:
    headers = {name: value.decode(errors="replace") for name, value in headers_in(message).items()}
    return DeadLetter(
        headers.get("group", ""),
        headers.get("position", ""),
        body_of(message),
        headers.get("reason", ""),
        produced_millis(message) * 1000,
    )
