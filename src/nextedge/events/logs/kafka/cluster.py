"""Connect one tenant's log to a Kafka cluster: clients, sending, reading, and errors."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nextedge.errors import ConfigError, LogFullError, MissingDependencyError, StorageError
from nextedge.events.logs.kafka.address import KafkaAddress, Settings
from nextedge.events.logs.kafka.messages import Headers

if TYPE_CHECKING:
    from confluent_kafka import Consumer as Client
    from confluent_kafka import KafkaError, Message, Producer

ANSWER_SECONDS = 5.0  # brokers that take longer count as unreachable
_ROOM_SECONDS = 1.0  # a queue that stays full for longer refuses the batch
_GRACE_SECONDS = 2.0  # the report of an undelivered message may come after its time limit
_SILENCE_SECONDS = 10.0  # a partition that returns nothing for longer is broken
_PRODUCER: Settings = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # the one of Java's clients: a user's events stay together
    "delivery.timeout.ms": 5_000,
    "linger.ms": 5,
    "compression.type": "lz4",
    "message.max.bytes": 10_000_000,  # the topic's own bound counts
}
_CONSUMER: Settings = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
}
_BOTH: Settings = {
    "socket.timeout.ms": 5_000,
    "reconnect.backoff.max.ms": 1_000,
    "log.connection.close": False,
}
_ONE_QUERY: Settings = {"enable.partition.eof": True, "fetch.wait.max.ms": 20}
_LOGGER = logging.getLogger("nextedge.kafka")
# Clients from before a fork are never closed: their threads are not in this process.
_OF_A_PARENT: list[object] = []


class TooLargeError(StorageError):
    """An event is larger than the topic allows."""


class KafkaCluster:
    """Clients of a cluster, made at first use and once in each process; safe for threads."""

    def __init__(self, address: KafkaAddress, tenant: str) -> None:
        try:
            import confluent_kafka  # here, because no other log needs it
        except ImportError:
            raise MissingDependencyError(
                "confluent-kafka", "kafka", f"The broker {address.public_url}"
            ) from None
        self.kafka: Any = confluent_kafka
        self.public_url = address.public_url
        self.topic = address.topic
        self.prefix = f"nextedge-{tenant}:"  # of group ids; no tenant's name has a colon
        self._address = address
        self._lock = threading.Lock()
        self._made: tuple[int, Producer] | None = None
        self._seen: set[str] = set()

    def send(self, topic: str, messages: Sequence[tuple[bytes | None, bytes, Headers]]) -> None:
        """Send messages and wait until the brokers have stored each."""
        producer = self._producer()
        stored = waiting = 0
        refusal: KafkaError | None = None

        def report(error: KafkaError | None, _: Message) -> None:
            nonlocal stored, waiting, refusal
            waiting -= 1
            stored += error is None
            refusal = refusal or error

        try:
            for message in messages:
                waiting += 1
                self._produce(producer, topic, message, report)
                if refusal is not None:
                    break
        except self.kafka.KafkaException as error:
            waiting -= 1
            refusal = error.args[0]
        until = time.monotonic() + self._delivery_seconds + _GRACE_SECONDS
        while waiting and time.monotonic() < until:
            producer.poll(0.05)
        if stored < len(messages):
            self._drop(producer)  # it may have failed for good
            missing = f"{len(messages) - stored} of {len(messages)} events were not stored"
            raise self.fault(refusal, missing)

    def _produce(
        self,
        producer: Producer,
        topic: str,
        message: tuple[bytes | None, bytes, Headers],
        report: Any,
    ) -> None:
        key, body, headers = message
        until = time.monotonic() + _ROOM_SECONDS
        while True:
            try:
                producer.produce(topic, body, key, on_delivery=report, headers=headers)
            except BufferError:
                if time.monotonic() > until:
                    raise LogFullError(
                        f"{self.public_url}: the brokers take events slower than they come; try again "
                        "later"
                    ) from None
                producer.poll(0.05)
            else:
                producer.poll(0)
                return

    @property
    def _delivery_seconds(self) -> float:
        settings = {**_PRODUCER, **self._address.producer}
        return int(settings["delivery.timeout.ms"]) / 1000

    def require(self, topic: str) -> None:
        """Check that a topic exists, once a process."""
        if topic not in self._seen:
            self.partitions(topic)
            self._seen.add(topic)

    def partitions(self, topic: str) -> list[int]:
        """Partitions of a topic; the query creates the topic if the brokers create topics automatically."""
        codes = self.kafka.KafkaError
        # a topic that the brokers are creating has no partitions or no leader for a moment
        may_come = (codes.UNKNOWN_TOPIC_OR_PART, codes.LEADER_NOT_AVAILABLE)
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                metadata = self._producer().list_topics(topic, ANSWER_SECONDS).topics[topic]
            except self.kafka.KafkaException as error:
                raise self.fault(error, "not reached") from None
            if metadata.partitions and not metadata.error:
                return sorted(metadata.partitions)
            if metadata.error and metadata.error.code() not in may_come:
                raise self.fault(metadata.error, f"topic {topic!r}")
            if time.monotonic() > until:
                raise StorageError(
                    f"{self.public_url}: there is no topic {topic!r}; make it, as with: "
                    f"kafka-topics.sh --create --topic {topic} --partitions 12"
                )
            time.sleep(0.1)

    def bounds(self, client: Client, topic: str) -> dict[int, tuple[int, int]]:
        """First offset and next offset, by partition."""
        key = self.kafka.TopicPartition
        return {
            part: client.get_watermark_offsets(key(topic, part), ANSWER_SECONDS)
            for part in self.partitions(topic)
        }

    def messages(
        self, client: Client, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> Iterator[Message]:
        """Messages of partitions between start and end offsets; each partition's in order."""
        left = {part for part, start in starts.items() if start < ends[part]}
        parts = [self.kafka.TopicPartition(topic, part, starts[part]) for part in sorted(left)]
        client.assign(parts)
        until = time.monotonic() + _SILENCE_SECONDS
        while left:
            messages = client.consume(1000, 0.05)
            if messages:
                until = time.monotonic() + _SILENCE_SECONDS
            for message in messages:
                error = message.error()
                partition, offset = message.partition() or 0, message.offset() or 0
                if error and error.code() == self.kafka.KafkaError._PARTITION_EOF:
                    left.discard(partition)
                elif error:
                    raise self.fault(error, "was not read to its end")
                elif partition in left and offset < ends[partition]:
                    yield message
                if partition in left and offset >= ends[partition] - 1:
                    left.discard(partition)
            if left and time.monotonic() > until:
                raise StorageError(f"{self.public_url}: gave nothing for {_SILENCE_SECONDS:g} s")

    @contextlib.contextmanager
    def querying(self, group: str, settings: Mapping[str, Any] = _ONE_QUERY) -> Iterator[Client]:
        """A client for one query; raises StorageError if the brokers do not answer."""
        client = self.client(group, settings)
        try:
            yield client
        except self.kafka.KafkaException as error:
            raise self.fault(error, "not answered") from None
        finally:
            client.close()

    def client(self, group: str, settings: Mapping[str, Any]) -> Client:
        """A consumer client with the group's id."""
        group_id = {"group.id": self.prefix + group}
        merged = {**_BOTH, **_CONSUMER, **settings, **self._address.consumer, **group_id}
        client: Client = self._new(self.kafka.Consumer, merged)
        return client

    def group_ids(self) -> list[str]:
        """Ids of all groups of the cluster that the login may list."""
        from confluent_kafka.admin import AdminClient

        try:
            admin = AdminClient({**_BOTH, **self._address.producer}, logger=_LOGGER)
            answer: Any = admin.list_consumer_groups(request_timeout=ANSWER_SECONDS).result()
        except self.kafka.KafkaException as error:
            raise self.fault(error, "groups were not listed") from None
        if answer.errors:
            raise self.fault(answer.errors[0], "groups were not listed")
        return [group.group_id for group in answer.valid]

    def close(self) -> None:
        """Close the producer; a later call makes another."""
        with self._lock:
            self._made = None
            self._seen.clear()

    def fault(self, error: object, what: str) -> StorageError:
        """A StorageError for an error of Kafka; its message has no credentials."""
        cause: Any = error.args[0] if isinstance(error, self.kafka.KafkaException) else error
        coded = isinstance(cause, self.kafka.KafkaError)
        text = "no answer in time" if cause is None else cause.str() if coded else str(cause)
        large = coded and cause.code() == self.kafka.KafkaError.MSG_SIZE_TOO_LARGE
        return (TooLargeError if large else StorageError)(f"{self.public_url}: {what}: {text}")

    def _producer(self) -> Producer:
        with self._lock:
            if self._made is not None and self._made[0] != os.getpid():
                _OF_A_PARENT.append(self._made)
                self._made = None
            if self._made is None:
                settings = {**_BOTH, **_PRODUCER, **self._address.producer}
                self._made = os.getpid(), self._new(self.kafka.Producer, settings)
            return self._made[1]

    def _drop(self, producer: Producer) -> None:
        with self._lock:
            if self._made is not None and self._made[1] is producer:
                self._made = None
            self._seen.clear()

    def _new(self, kind: Any, settings: Mapping[str, Any]) -> Any:
        try:
            return kind(dict(settings), logger=_LOGGER)
        except (self.kafka.KafkaException, TypeError, ValueError) as error:
            raise ConfigError(str(self.fault(error, "not opened"))) from None
