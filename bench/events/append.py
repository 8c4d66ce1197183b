"""Durable events/s of the local log by threads and batch size, beside the disk's own fsync rate.

python bench/events/append.py [--seconds 2] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

from nextedge.events.event import Event
from nextedge.events.local_log import LocalLog


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options.add_argument("--folder", type=Path, help="on the disk that is measured")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        print(f"fsync of 4 KiB appended: {fsyncs(folder / 'raw', given.seconds):,.0f}/s")
        print("threads  batch   appends/s     events/s")
        for threads in (1, 8, 32):
            for batch in (1, 100, 1000):
                log = LocalLog(folder / f"{threads}x{batch}")
                appends = rate(log, threads, batch, given.seconds)
                print(f"{threads:7} {batch:6} {appends:11,.0f} {appends * batch:12,.0f}")


def fsyncs(path: Path, seconds: float) -> float:
    """How often a second the disk takes 4 KiB for good."""
    count, began = 0, time.perf_counter()
    with path.open("wb", buffering=0) as file:
        while time.perf_counter() - began < seconds:
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            count += 1
    return count / (time.perf_counter() - began)


def rate(log: LocalLog, threads: int, batch: int, seconds: float) -> float:
    """Appends a second of so many threads at once, each of ``batch`` new events."""
    until = time.perf_counter() + seconds
    counts = [0] * threads
    appended = [0.0] * threads

    def work(number: int) -> None:
        while time.perf_counter() < until:
            turn = counts[number]
            log.append([
                Event(type="interact", user_id=f"u{number}", item_id=f"i{n}",
                      event_id=f"{number}/{turn}/{n}")
                for n in range(batch)
            ])  # fmt: skip
            counts[number] += 1
        appended[number] = time.perf_counter()

    began = time.perf_counter()
    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    return sum(counts) / (max(appended) - began)


if __name__ == "__main__":
    main()
