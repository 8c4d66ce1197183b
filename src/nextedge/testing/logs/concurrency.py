"""Processes and threads that work on a test's logs at the same time."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event as Signal
from pathlib import Path

from nextedge.events.logs.log import Log
from nextedge.testing.logs.access import OpenLog
from nextedge.testing.logs.sample_events import event


def append_in_batches(log: Log, user: str) -> None:
    for start in range(0, 60, 6):  # in batches, between which others append
        log.append([event(user, number) for number in range(start, start + 6)])


def append_many(url: str | None, folder: Path, _: Signal) -> None:
    log = OpenLog(url, folder)()
    append_in_batches(log, "child")
    log.close()


@contextlib.contextmanager
def other_process(
    work: Callable[[str | None, Path, Signal], None], opened: OpenLog
) -> Iterator[tuple[BaseProcess, Signal]]:
    """Start a process that works on the same logs; yields it and the event that it sets."""
    # spawn, as a forked process would share the connections of this one
    context = multiprocessing.get_context("spawn")
    signal = context.Event()
    child = context.Process(target=work, args=(opened.url, opened.folder, signal))
    child.start()
    try:
        yield child, signal
    finally:
        if child.is_alive():  # a failed test must not leave it waiting
            child.kill()
        child.join()
        child.close()
