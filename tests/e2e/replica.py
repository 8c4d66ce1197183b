"""A replica in a process of its own, that says what it knows of a Redis log when it is asked.

Run as ``replica.py URL TENANT``. Each line that it reads is a command, each line it writes an
answer as JSON: ``changes`` gives ``[changes, whether Redis was not asked]``, or ``["?", false]``
where it cannot be known; ``append NAME`` stores an event.
"""

from __future__ import annotations

import json
import sys

from nextedge.errors import LiveStateError
from nextedge.events.event import Event
from nextedge.events.logs.redis.log import RedisLog


def main(url: str, tenant: str) -> None:
    log = RedisLog(url, tenant, 1_000_000)
    log.follow()
    for line in sys.stdin:
        command, *given = line.split()
        if command == "append":
            answer: object = log.append([Event(type="leave", user_id="a", event_id=given[0])])
        else:
            fresh = log._fresh() is not None
            try:
                answer = [repr(log.changes(quick=True)), fresh]
            except LiveStateError:
                answer = ["?", False]
        print(json.dumps(answer), flush=True)
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
