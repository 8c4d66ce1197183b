"""A cluster of librdkafka's mock brokers in a process of its own, and how to disturb it.

The brokers speak Kafka's protocol over TCP, to any client. They are not Kafka: what they hold is
in memory only; they have no index of times (ListOffsets by time finds nothing), no list of groups,
no admin requests, no replicas, no log-append times, no retention and no access control.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


class KafkaMock:
    """One mock broker; it starts with the object, and ends with ``kill``."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.servers = self.process.stdout.readline().strip()
        assert self.servers, "the mock cluster did not start"

    def tell(self, *command: str | int) -> None:
        """Have a command carried out: down, up, fail API ERROR COUNT, refuse TOPIC ERROR."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*command, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n", command

    def stall(self) -> None:
        """It keeps its connections and answers nothing, until ``go_on``."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def known_groups(cluster: Any) -> list[str]:
    """In place of the list of groups, which the mock brokers do not have: those with an offset."""
    asked = ("group", "one", "two", "three")
    return [cluster.prefix + name for name in asked if _committed(cluster, name)]


def _committed(cluster: Any, group: str) -> bool:
    from confluent_kafka import TopicPartition

    topic = cluster.topic
    with cluster.querying(group) as client:
        places = [TopicPartition(topic, each) for each in cluster.partitions(topic)]
        return any(each.offset >= 0 for each in client.committed(places, 5))


def _library() -> Any:
    """The librdkafka that the Python client brings along, or the system's."""
    import confluent_kafka

    bundled = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = [*bundled.glob("librdkafka*.so*"), Path("librdkafka.so.1")]
    library = ctypes.CDLL(str(found[0]))
    for name in ("rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


def _serve() -> None:
    library = _library()
    text = ctypes.create_string_buffer(512)
    handle = library.rd_kafka_new(0, None, text, ctypes.c_size_t(512))
    assert handle, text.value
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(ctypes.c_void_p(handle), 1))
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, ctypes.c_int32(0))
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        command, *given = line.split()
        if command == "refuse":
            library.rd_kafka_mock_topic_set_error(cluster, given[0].encode(), int(given[1]))
        elif command == "fail":
            api, error, count = map(int, given)
            errors = (ctypes.c_int * count)(*[error] * count)
            library.rd_kafka_mock_push_request_errors_array(
                cluster, ctypes.c_int16(api), ctypes.c_size_t(count), errors
            )
        else:
            switch = {
                "down": library.rd_kafka_mock_broker_set_down,
                "up": library.rd_kafka_mock_broker_set_up,
            }
            switch[command](cluster, ctypes.c_int32(-1))
        print("done", flush=True)


if __name__ == "__main__":
    _serve()
