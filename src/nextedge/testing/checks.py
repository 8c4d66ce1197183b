"""What the contracts share: work in threads, and a check that a call fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


def in_threads(works: Sequence[Callable[[], object]]) -> None:
    """Run all at once, each in a thread of its own; raises the first error."""
    faults: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            faults.append(error)  # else the test passes

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def assert_raises(expected: type[Exception], call: Callable[[], object]) -> None:
    """Fail unless the call raises the error; contracts do not depend on pytest."""
    try:
        call()
    except expected:
        return
    raise AssertionError(f"expected {expected.__name__}")
