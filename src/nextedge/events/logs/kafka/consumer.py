"""One member of a Kafka consumer group."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from nextedge.errors import StorageError
from nextedge.events.logs.kafka.address import Settings
from nextedge.events.logs.kafka.cluster import KafkaCluster
from nextedge.events.logs.kafka.messages import delivery_of
from nextedge.events.logs.log import Bury, Consumer, Delivery

if TYPE_CHECKING:
    from confluent_kafka import Consumer as Client
    from confluent_kafka import KafkaError, Message, TopicPartition

_PROBE_SECONDS = 2.0  # less than for other queries: the brokers seem to be down
_COMMIT_SECONDS = 10.0  # after it the outcome of a commit counts as unknown
GROUP_SETTINGS: Settings = {
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    "max.poll.interval.ms": 120_000,
    "fetch.wait.max.ms": 100,
}


class KafkaConsumer(Consumer):
    """Consumes whole partitions; a partition that moves is delivered again to its new member.

    If a partition was revoked since the poll, ``commit`` raises, commits nothing, and goes back to
    the first uncommitted event.
    """

    def __init__(self, cluster: KafkaCluster, group: str, bury: Bury) -> None:
        self._cluster, self._kafka = cluster, cluster.kafka
        self._group = group
        self._bury = bury
        # by partition: the first uncommitted offset, and the next offset to poll
        self._polled: dict[int, tuple[int, int]] = {}
        self._gathered: list[Message] = []  # messages that no poll has returned yet
        self._commits = 0
        self._answers: list[KafkaError | None] = []  # one a commit, in order
        self._revoked = False
        self._trouble: str | None = None
        self._client = self._join()

    def _join(self) -> Client:
        client = self._cluster.client(
            self._group, {**GROUP_SETTINGS, "error_cb": self._note, "on_commit": self._answered}
        )
        client.subscribe([self._cluster.topic], on_revoke=self._revoke, on_lost=self._revoke)
        return client

    def _note(self, error: KafkaError) -> None:
        self._trouble = error.str()

    def _answered(self, error: KafkaError | None, parts: list[TopicPartition]) -> None:
        self._answers.append(error or next((part.error for part in parts if part.error), None))

    def _revoke(self, client: Client, partitions: list[TopicPartition]) -> None:
        # their uncommitted events are delivered again, to the members that get the partitions
        lost = {part.partition for part in partitions}
        self._revoked |= bool(lost & self._polled.keys())
        self._polled = {part: offsets for part, offsets in self._polled.items() if part not in lost}
        self._gathered = [m for m in self._gathered if m.partition() not in lost]

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
        try:
            messages = self._client.consume(limit, seconds)
        except (self._kafka.KafkaException, RuntimeError) as error:
            raise self._cluster.fault(error, "events were not read") from None
        for message in messages:
            if (trouble := message.error()) is None:
                self._gathered.append(message)
            else:
                self._trouble = trouble.str()

    def _probe(self) -> None:
        """Raise if no message came because the brokers are not reached or refuse."""
        if self._trouble is None:
            return
        trouble, self._trouble = self._trouble, None
        try:
            metadata = self._client.list_topics(self._cluster.topic, _PROBE_SECONDS)
        except self._kafka.KafkaException as error:
            raise self._cluster.fault(error, f"events were not read ({trouble})") from None
        if refusal := metadata.topics[self._cluster.topic].error:
            raise self._cluster.fault(refusal, "events were not read")

    def commit(self) -> None:
        polled, revoked = self._polled, self._revoked
        self._polled, self._revoked = {}, False
        try:
            owned = {part.partition for part in self._client.assignment()}
            if revoked or polled.keys() - owned:
                raise StorageError(
                    f"{self._cluster.public_url}: group {self._group!r} was rebalanced before the commit; "
                    "the polled events will be delivered again"
                )
            if polled:
                offsets = [
                    self._kafka.TopicPartition(self._cluster.topic, partition, after)
                    for partition, (_, after) in polled.items()
                ]
                self._client.commit(offsets=offsets, asynchronous=True)
                self._await_commit()
        except (self._kafka.KafkaException, RuntimeError) as error:
            self._go_back(polled)
            again = "not committed; the polled events will be delivered again"
            raise self._cluster.fault(error, again) from None
        except StorageError:
            self._go_back(polled)
            raise

    def _await_commit(self) -> None:
        self._commits += 1
        until, pause = time.monotonic() + _COMMIT_SECONDS, 0.001
        while len(self._answers) < self._commits:
            if time.monotonic() > until:
                raise StorageError(
                    f"{self._cluster.public_url}: no answer to a commit in {_COMMIT_SECONDS:g} s; the "
                    "polled events will be delivered again"
                )
            self._take(1, pause)  # answers arrive only while the client is polled
            pause = min(0.05, 2 * pause)
        if refusal := self._answers[self._commits - 1]:
            raise self._kafka.KafkaException(refusal)

    def _go_back(self, polled: dict[int, tuple[int, int]]) -> None:
        self._gathered = [m for m in self._gathered if m.partition() not in polled]
        try:
            owned = {part.partition for part in self._client.assignment()}
            for part in owned & polled.keys():
                first, _ = polled[part]
                self._client.seek(self._kafka.TopicPartition(self._cluster.topic, part, first))
        except (self._kafka.KafkaException, RuntimeError):
            self.close()  # a member that cannot seek joins again, at the last commit
            self._client = self._join()
            self._commits, self._answers = 0, []

    def reject(self, delivery: Delivery, reason: str) -> None:
        self._bury(self._group, delivery, reason)

    def close(self) -> None:
        self._polled, self._gathered, self._revoked = {}, [], False
        with contextlib.suppress(RuntimeError):  # the client is closed already
            self._client.close()
