"""The files below ``nextedge`` that a piece of work visits, on the threads that answer requests."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import nextedge

ROOT = Path(nextedge.__file__).parent
_PREFIX = f"{ROOT}/"
ANSWERING = ("MainThread", "nextedge-answer", "AnyIO worker thread", "asyncio-portal")
"""Beginnings of the names of threads that answer; background threads are left out."""


class Walk:
    """Records the files whose functions run while ``recording`` is active.

    Create it before the threads that it shall follow.
    """

    def __init__(self) -> None:
        self._files: dict[str, None] = {}  # unlike a set, in the order of the first calls
        self._active = False
        self._before = sys.gettrace()  # of a debugger or of a coverage run
        threading.settrace(self._trace)  # holds for later threads only
        sys.settrace(self._trace)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """A list that holds the visited files in the order of their first call, after the block."""
        files: list[str] = []
        self._files, self._active = {}, True
        try:
            yield files
        finally:
            self._active = False
            files += self._files

    def close(self) -> None:
        """Trace no more."""
        sys.settrace(self._before)
        threading.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> None:
        if not self._active or not threading.current_thread().name.startswith(ANSWERING):
            return
        code = frame.f_code
        # Bodies of modules and classes run when they are imported, whoever asks for them.
        ours = code.co_filename.startswith(_PREFIX) and code.co_filename != __file__
        if ours and code.co_flags & inspect.CO_OPTIMIZED:
            self._files.setdefault(code.co_filename[len(_PREFIX) :])
