"""The contract of event logs: what every log does, wherever its events lie.

A test class derives from ``LogContract``, or from ``LiveLogContract`` if its log is a live log, and
has a fixture ``open_log`` that gives an ``OpenLog``::

    class TestMyLog(LiveLogContract):
        @pytest.fixture
        def open_log(self, tmp_path):
            opened = OpenLog("mine://host", tmp_path)
            yield opened
            opened.close()
"""

from nextedge.testing.logs.access import OpenLog, collect
from nextedge.testing.logs.groups import LogContract
from nextedge.testing.logs.live import LiveLogContract
from nextedge.testing.logs.sample_events import LaterEvent, assert_ordered, event, events_of

__all__ = [
    "LaterEvent",
    "LiveLogContract",
    "LogContract",
    "OpenLog",
    "assert_ordered",
    "collect",
    "event",
    "events_of",
]
