"""The signature of a progress listener, in a module that light commands can import without NumPy."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Receives (name of the step, units done, units in all)."""


def quiet(text: str, done: int, total: int) -> None:
    """Ignore progress."""
