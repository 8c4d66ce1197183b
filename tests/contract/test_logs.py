"""Every log keeps the contract: a line here for each implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nextedge.events.logs.log import LiveLog, Log, log_classes
from nextedge.testing.logs import LiveLogContract, LogContract, OpenLog

Url = Callable[[pytest.FixtureRequest], str | None]
LIVE_LOGS: dict[str, Url] = {
    "local": lambda request: None,
    "redis": lambda request: (
        request.getfixturevalue("start_redis")("--appendonly", "yes", "--appendfsync", "always").url
    ),
}
BROKERS: dict[str, Url] = {"kafka": lambda request: str(request.getfixturevalue("kafka_url"))}


def _opened(
    request: pytest.FixtureRequest, logs: dict[str, Url], folder: Path
) -> Iterator[OpenLog]:
    opened = OpenLog(logs[request.param](request), folder)
    yield opened
    opened.close()


class TestLiveLog(LiveLogContract):
    @pytest.fixture(params=sorted(LIVE_LOGS))
    def open_log(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenLog]:
        yield from _opened(request, LIVE_LOGS, tmp_path)


@pytest.mark.slow
class TestBroker(LogContract):
    @pytest.fixture(params=sorted(BROKERS))
    def open_log(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenLog]:
        yield from _opened(request, BROKERS, tmp_path)


def test_no_log_is_left_out() -> None:
    live = {name for name, cls in log_classes().items() if issubclass(cls, LiveLog)}
    assert live == set(LIVE_LOGS)
    assert set(log_classes()) - live == set(BROKERS)
    assert all(issubclass(cls, Log) for cls in log_classes().values())
