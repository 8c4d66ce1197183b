"""A topic of Kafka as a stream of Spark's, through librdkafka: where Spark's own connector is not.

The offsets of a batch are Spark's: they are in its checkpoint before the batch runs, so that it is
read again whole after a crash. Nothing is committed to Kafka.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

from nextedge.errors import MissingDependencyError, StorageError

_SECONDS = 10.0
FORMAT = "nextedge_kafka"
Offsets = dict[str, int]


@dataclass
class Range(InputPartition):
    """Offsets of one partition of the topic: from ``start``, before ``end``."""

    partition: int
    start: int
    end: int


class KafkaStream(DataSource):
    """Rows of one column, ``value``: the messages of a topic as text.

    Options: ``topic``, and ``secret.settings`` (a name that Spark never prints the value of), JSON of librdkafka's settings.
    """

    @classmethod
    def name(cls) -> str:
        return FORMAT

    def schema(self) -> str:
        return "value string"

    def streamReader(self, schema: Any) -> DataSourceStreamReader:  # noqa: N802
        return _Reader(self.options["topic"], json.loads(self.options["secret.settings"]))


class _Reader(DataSourceStreamReader):
    def __init__(self, topic: str, settings: dict[str, Any]) -> None:
        self.topic = topic
        self.settings = settings

    def initialOffset(self) -> Offsets:  # noqa: N802
        return {partition: low for partition, (low, _) in self._bounds().items()}

    def latestOffset(self, start: Any = None, limit: Any = None) -> Offsets:  # noqa: N802
        return {partition: high for partition, (_, high) in self._bounds().items()}

    def partitions(self, start: Offsets, end: Offsets) -> list[Range]:
        ranges = [Range(int(each), start.get(each, 0), until) for each, until in end.items()]
        return [each for each in ranges if each.end > each.start]

    def read(self, partition: Any) -> Iterator[tuple[str]]:
        """Every message of a range; what Kafka has deleted meanwhile is an error, not a gap."""
        from confluent_kafka import TopicPartition

        consumer = self._consumer()
        try:
            consumer.assign([TopicPartition(self.topic, partition.partition, partition.start)])
            position = partition.start
            while position < partition.end:
                message = consumer.poll(_SECONDS)
                if message is None or message.error():
                    reason = "no answer" if message is None else message.error()
                    raise StorageError(
                        f"kafka: {self.topic}/{partition.partition} at offset {position}: {reason}"
                    )
                position = message.offset() + 1
                if message.offset() < partition.end and message.value() is not None:
                    yield (message.value().decode("utf-8", "replace"),)
        finally:
            consumer.close()

    def _bounds(self) -> dict[str, tuple[int, int]]:
        """First and next offset of every partition."""
        from confluent_kafka import KafkaException, TopicPartition

        consumer = self._consumer()
        try:
            about = consumer.list_topics(self.topic, timeout=_SECONDS).topics[self.topic]
            if about.error is not None:
                raise StorageError(f"kafka: {self.topic}: {about.error}")
            return {
                str(each): consumer.get_watermark_offsets(
                    TopicPartition(self.topic, each), timeout=_SECONDS
                )
                for each in sorted(about.partitions)
            }
        except KafkaException as error:
            raise StorageError(f"kafka: {self.topic}: {error}") from None
        finally:
            consumer.close()

    def _consumer(self) -> Any:
        try:
            from confluent_kafka import Consumer
        except ImportError:
            raise MissingDependencyError("confluent-kafka", "kafka", "Reading Kafka") from None
        return Consumer(
            {
                **self.settings,
                "group.id": "nextedge-stream",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": False,
            }
        )
