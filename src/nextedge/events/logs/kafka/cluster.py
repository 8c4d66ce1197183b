"""A Kafka cluster as one tenant's log uses it: clients, messages in and out, and what went wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nextedge.errors import ConfigError, LogFullError, MissingDependencyError, StorageError
from nextedge.events.logs.kafka.address import KafkaAddress
from nextedge.events.logs.kafka.messages import Headers

if TYPE_CHECKING:
    from confluent_kafka import Consumer as Client
    from confluent_kafka import KafkaError, Message, Producer

ANSWER_SECONDS = 5.0
"""How long brokers may take to answer."""
_ROOM_SECONDS = 1.0
"""How long a full queue of messages may stay full."""
_GRACE_SECONDS = 2.0
"""How much later than its time limit the report of an undelivered message may come."""
_SILENCE_SECONDS = 10.0
"""How long a partition may return nothing while it is read."""
_PRODUCER: dict[str, str | int | bool] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # the one of Java's clients: a user's events stay together
    "delivery.timeout.ms": 5_000,
    "linger.ms": 5,
    "compression.type": "lz4",
    "message.max.bytes": 10_000_000,  # the topic's own bound counts
}
_CONSUMER: dict[str, str | int | bool] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
}
_BOTH: dict[str, str | int | bool] = {
    "socket.timeout.ms": 5_000,
    "reconnect.backoff.max.ms": 1_000,
    "log.connection.close": False,
}
QUESTION: dict[str, str | int | bool] = {"enable.partition.eof": True, "fetch.wait.max.ms": 20}
_LOGGER = logging.getLogger("nextedge.kafka")
_OF_A_PARENT: list[object] = []
"""Clients from before a fork: their threads are not in this process, so they are never closed."""


class KafkaCluster:
    """Clients are made at their first use, in each process its own; safe for several threads."""

    def __init__(self, address: KafkaAddress, tenant: str) -> None:
        try:
            import confluent_kafka  # noqa: F401
        except ImportError:
            raise MissingDependencyError(
                "confluent-kafka", "kafka", f"The broker {address.public_url}"
            ) from None
        self.public_url = address.public_url
        self.topic = address.topic
        self.prefix = f"nextedge-{tenant}:"
        """Prefix of the ids of the tenant's groups; no tenant's name has a colon."""
        self._address = address
        self._lock = threading.Lock()
        self._made: tuple[int, Producer] | None = None
        self._seen: set[str] = set()

    def send(self, topic: str, messages: Sequence[tuple[bytes | None, bytes, Headers]]) -> None:
        """Produce messages and wait for the report of each."""
        from confluent_kafka import KafkaException

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
        except KafkaException as error:
            waiting -= 1
            refusal = error.args[0]
        until = time.monotonic() + self._delivery_seconds + _GRACE_SECONDS
        while waiting and time.monotonic() < until:
            producer.poll(0.05)
        if stored < len(messages):
            self._drop(producer)
            missing = f"{len(messages) - stored} of {len(messages)} events were not stored"
            raise self.fault(refusal, missing)

    def _produce(
        self,
        producer: Producer,
        topic: str,
        message: tuple[bytes | None, bytes, Headers],
        report: Any,
    ) -> None:
        """Pass one message to librdkafka, when its queue has room."""
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
        """Check once that a topic exists."""
        if topic not in self._seen:
            self.partitions(topic)
            self._seen.add(topic)

    def partitions(self, topic: str) -> list[int]:
        """Partitions of a topic; brokers that create topics by themselves create it."""
        from confluent_kafka import KafkaError, KafkaException

        may_come = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE)
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                metadata = self._producer().list_topics(topic, ANSWER_SECONDS).topics[topic]
            except KafkaException as error:
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
        """By partition: the first offset, and the next one."""
        from confluent_kafka import TopicPartition

        return {
            part: client.get_watermark_offsets(TopicPartition(topic, part), ANSWER_SECONDS)
            for part in self.partitions(topic)
        }

    def messages(
        self, client: Client, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> Iterator[Message]:
        """Messages of partitions from their starts up to their ends, those of each in order."""
        from confluent_kafka import KafkaError, TopicPartition

        left = {part for part, start in starts.items() if start < ends[part]}
        client.assign([TopicPartition(topic, part, starts[part]) for part in sorted(left)])
        until = time.monotonic() + _SILENCE_SECONDS
        while left:
            messages = client.consume(1000, 0.05)
            if messages:
                until = time.monotonic() + _SILENCE_SECONDS
            for message in messages:
                error = message.error()
                partition, offset = message.partition() or 0, message.offset() or 0
                if error and error.code() == KafkaError._PARTITION_EOF:
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
    def asking(self, group: str, settings: Mapping[str, Any] = QUESTION) -> Iterator[Client]:
        """A client for one question; raises StorageError where the brokers do not answer."""
        from confluent_kafka import KafkaException

        client = self.client(group, settings)
        try:
            yield client
        except KafkaException as error:
            raise self.fault(error, "not answered") from None
        finally:
            client.close()

    def client(self, group: str, settings: Mapping[str, Any]) -> Client:
        """A consumer of librdkafka with the group's id."""
        from confluent_kafka import Consumer as Client

        group_id = {"group.id": self.prefix + group}
        client: Client = self._new(
            Client, {**_BOTH, **_CONSUMER, **settings, **self._address.consumer, **group_id}
        )
        return client

    def group_ids(self) -> list[str]:
        """All groups of the cluster that the login may list."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            admin = AdminClient({**_BOTH, **self._address.producer}, logger=_LOGGER)
            answer: Any = admin.list_consumer_groups(request_timeout=ANSWER_SECONDS).result()
        except KafkaException as error:
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
        """An error of Kafka as one of ours, without credentials."""
        from confluent_kafka import KafkaError, KafkaException

        cause = error.args[0] if isinstance(error, KafkaException) else error
        text = f"{self.public_url}: {what}: {_text(error)}"
        if isinstance(cause, KafkaError) and cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return TooLargeError(text)
        return StorageError(text)

    def _producer(self) -> Producer:
        from confluent_kafka import Producer

        with self._lock:
            if self._made is not None and self._made[0] != os.getpid():
                _OF_A_PARENT.append(self._made)
                self._made = None
            if self._made is None:
                settings = {**_BOTH, **_PRODUCER, **self._address.producer}
                self._made = os.getpid(), self._new(Producer, settings)
            return self._made[1]

    def _drop(self, producer: Producer) -> None:
        """Let the next append begin with another producer: this one may have failed for good."""
        with self._lock:
            if self._made is not None and self._made[1] is producer:
                self._made = None
            self._seen.clear()

    def _new(self, kind: Any, settings: Mapping[str, Any]) -> Any:
        from confluent_kafka import KafkaException

        try:
            return kind(dict(settings), logger=_LOGGER)
        except (KafkaException, TypeError, ValueError) as error:
            raise ConfigError(f"{self.public_url}: {_text(error)}") from None


def _text(error: object) -> str:
    """The text of an error, without the numbers around it."""
    from confluent_kafka import KafkaError, KafkaException

    cause = error.args[0] if isinstance(error, KafkaException) else error
    if cause is None:
        return "no answer in time"
    return cause.str() if isinstance(cause, KafkaError) else str(cause)


class TooLargeError(StorageError):
    """An event is larger than the topic takes."""
