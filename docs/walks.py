"""Trace one request and one build of a small tenant: the files of docs/walks.md, in the order of their first call.

python docs/walks.py DIR        # a folder of tables with a release; prints both walks
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.testing.walk import ROOT, Walk

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

    async def both(walk: Walk) -> tuple[list[str], list[str]]:
        recommender = Recommender(directory)
        app = create_app(recommender)
        async with app.router.lifespan_context(app):
            first, second = recommender.release.entities.users.identifiers([0, 1]).to_pylist()
            await get(app, first)  # what is opened or derived once is no part of the walk
            time.sleep(0.2)  # nor is the memory of who just asked
            with walk.recording() as uncached:
                await get(app, second)
            time.sleep(0.2)  # what answers leave to be written is written
            with walk.recording() as repeat:
                await get(app, second)
        return uncached, repeat

    with contextlib.closing(Walk()) as walk:
        return asyncio.run(both(walk))


def walk_of_a_build(directory: Path) -> list[str]:
    """Those of the files of ``STEPS`` that a build of a folder of tables visits."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tenant"
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("state"))
        recommender = Recommender(copy)
        with contextlib.closing(Walk()) as walk, walk.recording() as files:
            recommender.build()
    steps = {path.relative_to(ROOT).as_posix() for part in STEPS for path in ROOT.glob(part)}
    return [file for file in files if file in steps]


def listed(files: list[str]) -> list[str]:
    """Lines of a walk: each file with the first line of its docstring."""
    lines = []
    for number, file in enumerate(files, 1):
        doc = ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8"))) or ""
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
