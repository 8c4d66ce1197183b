"""One member of a Kafka consumer group."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from nextedge.errors import StorageError
from nextedge.events.logs.kafka.cluster import KafkaCluster
from nextedge.events.logs.kafka.messages import delivery_of
from nextedge.events.logs.log import Bury, Consumer, Delivery

if TYPE_CHECKING:
    from confluent_kafka import Consumer as Client
    from confluent_kafka import KafkaError, Message, TopicPartition

_PROBE_SECONDS = 2.0
"""How long brokers that seem to be down may take to answer."""
_COMMIT_SECONDS = 10.0
"""How long brokers may take to answer a commit."""
GROUP_SETTINGS: dict[str, str | int | bool] = {
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    "max.poll.interval.ms": 120_000,
    "fetch.wait.max.ms": 100,
}


class KafkaConsumer(Consumer):
    """Has whole partitions; a partition that goes to another member comes again there.

    Where a partition was taken away or lost meanwhile, ``commit`` raises, commits nothing, and goes
    back to the first uncommitted event.
    """

    def __init__(self, cluster: KafkaCluster, group: str, bury: Bury) -> None:
        self._cluster = cluster
        self._group = group
        self._bury = bury
        self._polled: dict[int, tuple[int, int]] = {}
        """By partition: the first offset not committed, and the next to be polled."""
        self._gathered: list[Message] = []
        """Messages that no poll has returned yet."""
        self._asked = 0
        self._answers: list[KafkaError | None] = []
        """Of the commits so far, in their order."""
        self._taken_away = False
        self._trouble: str | None = None
        self._client = self._join()

    def _join(self) -> Client:
        client = self._cluster.client(
            self._group, {**GROUP_SETTINGS, "error_cb": self._note, "on_commit": self._answered}
        )
        client.subscribe([self._cluster.topic], on_revoke=self._revoked, on_lost=self._revoked)
        return client

    def _note(self, error: KafkaError) -> None:
        self._trouble = error.str()

    def _answered(self, error: KafkaError | None, parts: list[TopicPartition]) -> None:
        self._answers.append(error or next((part.error for part in parts if part.error), None))

    def _revoked(self, client: Client, partitions: list[TopicPartition]) -> None:
        """The group is shared out anew: uncommitted events of these partitions come again elsewhere."""
        lost = {part.partition for part in partitions}
        self._taken_away |= bool(lost & self._polled.keys())
        self._polled = {part: offsets for part, offsets in self._polled.items() if part not in lost}
        self._gathered = [found for found in self._gathered if found.partition() not in lost]

    def poll(self, limit: int = 1000, timeout_seconds: float = 1.0) -> list[Delivery]:
        if limit < 1:
            return []
        until = time.monotonic() + timeout_seconds
        while not self._gathered:
            self._take(1, max(0.0, until - time.monotonic()))
            if time.monotonic() >= until:
                break
        if 0 < len(self._gathered) < limit:
            self._take(limit - len(self._gathered), 0.0)
        if not self._gathered:
            self._probe()
        messages, self._gathered = self._gathered[:limit], self._gathered[limit:]
        for message in messages:
            partition, offset = message.partition() or 0, message.offset() or 0
            first, _ = self._polled.get(partition, (offset, offset))
            self._polled[partition] = (first, offset + 1)
        return list(map(delivery_of, messages))

    def _take(self, limit: int, seconds: float) -> None:
        """Gather messages; librdkafka shares the group out meanwhile."""
        from confluent_kafka import KafkaException

        try:
            messages = self._client.consume(limit, seconds)
        except (KafkaException, RuntimeError) as error:
            raise self._cluster.fault(error, "events were not read") from None
        for message in messages:
            if (trouble := message.error()) is None:
                self._gathered.append(message)
            else:
                self._trouble = trouble.str()

    def _probe(self) -> None:
        """Raise if nothing came because the brokers are not reached or refuse."""
        from confluent_kafka import KafkaException

        if self._trouble is None:
            return
        trouble, self._trouble = self._trouble, None
        try:
            metadata = self._client.list_topics(self._cluster.topic, _PROBE_SECONDS)
        except KafkaException as error:
            raise self._cluster.fault(error, f"events were not read ({trouble})") from None
        if refusal := metadata.topics[self._cluster.topic].error:
            raise self._cluster.fault(refusal, "events were not read")

    def commit(self) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        polled, taken_away = self._polled, self._taken_away
        self._polled, self._taken_away = {}, False
        try:
            owned = {part.partition for part in self._client.assignment()}
            if taken_away or polled.keys() - owned:
                raise StorageError(
                    f"{self._cluster.public_url}: group {self._group!r} was shared out anew before the "
                    "commit; what was polled will be delivered again"
                )
            if polled:
                offsets = [
                    TopicPartition(self._cluster.topic, partition, after)
                    for partition, (_, after) in polled.items()
                ]
                self._client.commit(offsets=offsets, asynchronous=True)
                self._await_commit()
        except (KafkaException, RuntimeError) as error:
            self._go_back(polled)
            raise self._cluster.fault(
                error, "not committed; what was polled will be delivered again"
            ) from None
        except StorageError:
            self._go_back(polled)
            raise

    def _await_commit(self) -> None:
        """Wait for the answer to the commit; messages that come meanwhile are for the next poll."""
        from confluent_kafka import KafkaException

        self._asked += 1
        until, pause = time.monotonic() + _COMMIT_SECONDS, 0.001
        while len(self._answers) < self._asked:
            if time.monotonic() > until:
                raise StorageError(
                    f"{self._cluster.public_url}: no answer to a commit in {_COMMIT_SECONDS:g} s; what "
                    "was polled will be delivered again"
                )
            self._take(1, pause)
            pause = min(0.05, 2 * pause)
        if refusal := self._answers[self._asked - 1]:
            raise KafkaException(refusal)

    def _go_back(self, polled: dict[int, tuple[int, int]]) -> None:
        """Seek the first uncommitted event; a member that cannot seek leaves and joins anew."""
        from confluent_kafka import KafkaException, TopicPartition

        self._gathered = [found for found in self._gathered if found.partition() not in polled]
        try:
            owned = {part.partition for part in self._client.assignment()}
            for partition in owned & polled.keys():
                self._client.seek(
                    TopicPartition(self._cluster.topic, partition, polled[partition][0])
                )
        except (KafkaException, RuntimeError):
            self.close()
            self._client = self._join()
            self._asked, self._answers = 0, []

    def reject(self, delivery: Delivery, reason: str) -> None:
        self._bury(self._group, delivery, reason)

    def close(self) -> None:
        self._polled, self._gathered, self._taken_away = {}, [], False
        with contextlib.suppress(RuntimeError):  # it is closed
            self._client.close()
