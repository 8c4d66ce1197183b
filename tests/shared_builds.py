"""Tenants that are built once a session, whichever worker needs them first."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The folder that all workers of a session share; the first that needs it builds it.

    No test may write to it.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a folder below the session's
    folder, done = root / "shared" / name, root / "shared" / f"{name}.done"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            done.touch()
    return folder


def own_copy(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A copy of such a folder for this worker, so that live state is no other worker's."""
    folder = factory.mktemp(name) / name
    shutil.copytree(built_once(factory, name, build), folder, symlinks=True)
    return folder


def quick_builds(folder: Path) -> Path:
    """Let later builds of a copy train no ranker: the best source's order is served."""
    settings = folder / "nextedge.toml"
    text = settings.read_text()
    quick = text.replace("max_rows = 10000", 'max_rows = 1000\ncompare = ["best_source"]')
    assert quick != text
    settings.write_text(quick)
    return folder
