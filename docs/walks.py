"""Trace one request and one build of a small tenant: the files of docs/walks.md, in the order of their first call.

python docs/walks.py DIR        # a folder of tables with a release; prints both walks
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import nextedge
from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.data.synthetic import SyntheticConfig, generate_tenant

SOURCE = Path(nextedge.__file__).parent
STEPS = ("recommender.py", "build/*.py", "releases/repository.py")
"""The files that the walk of a build lists: the steps in their order. What they call is left out."""


def small_tenant(directory: Path) -> None:
    """Make tables and a release of both surfaces: what the walks run on."""
    generate_tenant(directory, SyntheticConfig(users=300, items=120, seed=3))
    surfaces = "".join(
        f"[surfaces.{name}.ranker]\nmax_rows = 25000\n" for name in ("people", "items")
    )
    (directory / "nextedge.toml").write_text(f"[serving]\ndeadline_ms = 0\n{surfaces}")
    Recommender(directory).build()


class Visits:
    """Files below ``src/nextedge`` in the order of the first call of one of their functions."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.on = False
        self._prefix = f"{SOURCE}/"

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not self.on or event != "call" or not code.co_filename.startswith(self._prefix):
            return
        # bodies of modules and classes run when they are imported, whoever asks
        if code.co_flags & inspect.CO_OPTIMIZED and _answers(threading.current_thread()):
            self.files.setdefault(code.co_filename[len(self._prefix) :])


def _answers(thread: threading.Thread) -> bool:
    """Whether a thread computes what is asked; others poll the log and write behind."""
    return thread.name.startswith(("MainThread", "nextedge-answer", "AnyIO worker"))


@contextlib.contextmanager
def traced() -> Iterator[Visits]:
    """Visits of this thread, and of threads that are started meanwhile, while they are ``on``."""
    visits = Visits()
    threading.setprofile(visits)
    sys.setprofile(visits)
    try:
        yield visits
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as the documentation says


def walk_of_a_request(directory: Path) -> tuple[list[str], list[str]]:
    """Files that an uncached request over HTTP visits, and files that its repeat visits."""

    async def get(app: Any, user: str) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/people/recommendations",
            "raw_path": b"/v1/people/recommendations",
            "query_string": f"user_id={user}&limit=8".encode(),
            "headers": [],
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        status: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            status.append(message.get("status", 0))

        await app(scope, receive, send)
        assert status[0] == 200, status

    async def walk(visits: Visits) -> tuple[list[str], list[str]]:
        recommender = Recommender(directory)
        app = create_app(recommender)
        async with app.router.lifespan_context(app):
            first, second = recommender.release.entities.users.identifiers([0, 1]).to_pylist()
            await get(app, first)  # what is opened or derived once is no part of the walk
            walks: list[list[str]] = []
            for _ in ("uncached", "repeat"):
                visits.files, visits.on = {}, True
                await get(app, second)
                visits.on = False
                walks.append(list(visits.files))
                time.sleep(0.2)  # what answers leave to be written is written
        return walks[0], walks[1]

    with traced() as visits:
        return asyncio.run(walk(visits))


def walk_of_a_build(directory: Path) -> list[str]:
    """Those of the files of ``STEPS`` that a build of a folder of tables visits."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tenant"
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("state"))
        recommender = Recommender(copy)
        with traced() as visits:
            visits.on = True
            recommender.build()
    steps = {path.relative_to(SOURCE).as_posix() for part in STEPS for path in SOURCE.glob(part)}
    return [file for file in visits.files if file in steps]


def listed(files: list[str]) -> list[str]:
    """Lines of a walk: each file with the first line of its docstring."""
    lines = []
    for number, file in enumerate(files, 1):
        doc = ast.get_docstring(ast.parse((SOURCE / file).read_text(encoding="utf-8"))) or ""
        lines.append(f"{number}. `{file}`: {doc.splitlines()[0]}")
    return lines


def main() -> None:
    directory = Path(sys.argv[1])
    uncached, repeat = walk_of_a_request(directory)
    for title, files in (
        ("uncached", uncached),
        ("repeat", repeat),
        ("build", walk_of_a_build(directory)),
    ):
        print(f"{title}: {len(files)}", *listed(files), sep="\n")


if __name__ == "__main__":
    main()
