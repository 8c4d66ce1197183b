"""Which heavy packages each command, and a server process, may load: what keeps them light."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from nextedge.cli.main import app

HEAVY = (
    "duckdb fastapi faiss granian ibis lightgbm numba numpy pandas pandera pyarrow pyspark rich "
    "scipy sklearn torch xgboost"
).split()
ENGINE = {"numba", "numpy", "pyarrow", "scipy"}
"""What a Recommender loads before it reads anything."""
SERVER = {*ENGINE, "fastapi"}

# Command = what it may load, and arguments of a short run; None where it is too long for a unit
# test: what it may load is then only declared. A new command is added here.
COMMANDS: dict[str, tuple[set[str], list[str] | None]] = {
    "demo": ({*ENGINE, "duckdb", "ibis", "lightgbm", "pandas", "rich", "sklearn"}, None),
    "init": (set(), ["new"]),
    "check": ({*ENGINE, "duckdb", "ibis", "pandas"}, None),
    "build": ({*ENGINE, "duckdb", "ibis", "lightgbm", "pandas", "sklearn"}, None),
    "recommend": (ENGINE, ["--user", "ada"]),
    "evaluate": (ENGINE, None),
    "serve": (SERVER, None),
    "serve-shard": (ENGINE, None),
    "publish": (ENGINE, None),
    "record": (ENGINE, None),
    "replay": (ENGINE, None),
    "contacts": (ENGINE, None),
    "forget": (ENGINE, None),
    "import": ({*ENGINE, "duckdb", "pandas"}, None),
    "plan": ({"numpy", "rich"}, None),
    "releases": ({"rich"}, []),
    "releases list": ({"rich"}, []),
    "releases show": (set(), ["r1"]),
    "releases costs": (set(), ["r1"]),
    "releases diff": (set(), ["r1", "r2"]),
    "releases gate": (set(), ["r1"]),
    "releases promote": (set(), ["r1"]),
    "releases rollback": (set(), []),
    "releases trial": (set(), ["r1"]),
    "releases prune": (set(), []),
    "keys create": (set(), ["--json"]),
    "keys list": ({"rich"}, []),
    "keys revoke": (set(), ["k1"]),
    "events status": (set(), []),
    "events dead-letters": (set(), []),
    "events schema": (set(), []),
    "events drop-group": (set(), ["g1"]),
}
RUN = """
import contextlib, io, json, sys
from nextedge.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    for arguments in json.loads(sys.argv[1]):
        try:
            main.app(arguments)
        except (SystemExit, Exception):
            pass
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def run(code: str, *arguments: Any, folder: Path) -> set[str]:
    """The heavy packages that a process has loaded at its end."""
    environment = {**os.environ, "NEXTEDGE_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(json.dumps, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return {*HEAVY} & {*json.loads(done.stdout.splitlines()[-1])}


def names(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command that can be called, as it is typed."""
    children = getattr(command, "commands", {})
    if path and (not children or command.invoke_without_command):
        yield " ".join(path)
    for name, child in children.items():
        yield from names(child, (*path, name))


def test_every_command_says_what_it_may_load() -> None:
    assert set(names(get_command(app))) == set(COMMANDS)


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    helps = [[*command.split(), "--help"] for command in COMMANDS]
    assert run(RUN, [["--help"], *helps], folder=tmp_path) == set()


SHORT = {name: short for name, (_, short) in COMMANDS.items() if short is not None}
GROUPS = {frozenset(COMMANDS[name][0]) for name in SHORT}


@pytest.mark.parametrize(
    "allowed", sorted(GROUPS, key=sorted), ids=lambda group: "+".join(sorted(group)) or "nothing"
)
def test_a_command_loads_no_more_than_it_may(allowed: frozenset[str], tmp_path: Path) -> None:
    """Commands that may load the same run in one process, one after the other."""
    (tmp_path / "nextedge.toml").write_text("[surfaces.people]\n")
    runs = [
        [*command.split(), *arguments]
        for command, arguments in SHORT.items()
        if COMMANDS[command][0] == allowed
    ]
    assert run(RUN, runs, folder=tmp_path) <= allowed


SERVE = """
import json, sys
from nextedge import Recommender
from nextedge.api.app import create_app

recommender = Recommender(json.loads(sys.argv[1]))
create_app(recommender)
recommender.warm_up()
users = recommender.release.entities.users
for position in range(0, len(users), len(users) // 20):
    for surface in recommender.release.surfaces:
        recommender.recommend(users.identifier(position), surface, 20)
recommender.recommend("nobody we know", "people", 20)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_a_server_process_loads_no_library_that_only_builds_need(tenant: Path) -> None:
    """An ``explain`` of trees is the exception: LightGBM computes it, and is loaded then."""
    assert run(SERVE, str(tenant), folder=tenant) <= SERVER


def test_scripts_import_only_names_that_exist() -> None:
    """No test runs the benchmarks, so a renamed name would break one unseen."""
    home = Path(__file__).parents[2]
    missing = []
    for script in [*home.glob("bench/**/*.py"), *home.glob("examples/**/*.py")]:
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nextedge":
                path = home / "src" / (node.module or "").replace(".", "/")
                names = _names_of(path)
                wanted = {alias.name for alias in node.names}
                missing += [f"{script}: {node.module}.{name}" for name in sorted(wanted - names)]
    assert missing == []


def _names_of(path: Path) -> set[str]:
    """Top-level names of a module, and modules of a package."""
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not source.exists():
        return set()
    names = {child.stem for child in path.iterdir()} if path.is_dir() else set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # names that a package imports lazily
    return names
