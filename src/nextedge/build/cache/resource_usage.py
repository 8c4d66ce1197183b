"""Cost of a step: wall and CPU seconds, peak memory, and the size of its output."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_EVERY = 0.05
_STATUS = Path("/proc/self/status")


@dataclass
class Usage:
    """Cost of one step, of this process and its children.

    Attributes:
        seconds: wall clock.
        cpu_seconds: of all threads, and of child processes that ended meanwhile.
        peak_memory_mib: peak anonymous memory of this process, sampled every 50 ms, without pages
            of mapped files, which the system takes back at need. Elsewhere than on Linux, the
            largest resident size of the process.
        output_mib: files that the step wrote.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mib: float = 0.0
    output_mib: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


@contextmanager
def measured(output: Path) -> Iterator[Usage]:
    """Measure the body; ``output`` is the folder that it writes."""
    usage, stop = Usage(), threading.Event()
    sampler = threading.Thread(
        target=_sample, args=(usage, stop), name="nextedge-usage", daemon=True
    )
    started, cpu = time.perf_counter(), _cpu_seconds()
    sampler.start()
    try:
        yield usage
    finally:
        stop.set()
        sampler.join()
        usage.seconds = time.perf_counter() - started
        usage.cpu_seconds = _cpu_seconds() - cpu
        files = (path for path in output.rglob("*") if path.is_file())
        usage.output_mib = sum(path.stat().st_size for path in files) / 2**20


def _sample(usage: Usage, stop: threading.Event) -> None:
    while True:
        # Before the wait, so that a shorter step has a sample too.
        usage.peak_memory_mib = max(usage.peak_memory_mib, _memory_mib())
        if stop.wait(_EVERY):
            return


def _memory_mib() -> float:
    try:
        line = next(part for part in _STATUS.read_text().splitlines() if part.startswith("RssAnon"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (2**20 if sys.platform == "darwin" else 1024)  # bytes there, else KiB


def _cpu_seconds() -> float:
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)
