"""Imports go down the layers only, and no circle exists, imports for typing included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import networkx as nx
import pytest

import nextedge

ROOT = Path(nextedge.__file__).parent
LAYERS = (
    "__main__",
    "cli console client",
    "api",
    "recommender",
    "serving planning",
    "build",
    "experiments monitoring",
    "policy evaluation testing",
    "ranking events",
    "retrieval releases",
    "features models",
    "graph stores",
    "data",
    "engines",
    "config",
    "index storage",
    "discovery",
    "types schema errors cores memory progress",
)
"""From the top. What shares a layer does not import each other. The table of contents of the
package (``nextedge/__init__.py``) is above them all."""
PLACES = {name: place for place, names in enumerate(LAYERS) for name in names.split()}


def import_graph(root: Path) -> nx.DiGraph[str]:
    """Which module imports which, by their names below the package."""
    files = {}
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(files)
    for module, file in files.items():
        for name in imported_names(ast.parse(file.read_text())):
            target = name if name in files else name.rpartition(".")[0]
            assert target in files, f"{module} imports {name}, which is no module"
            if target not in (module, ""):
                graph.add_edge(module, target)
    return graph


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Names below the package that a module imports anywhere, functions and types included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name their module whole"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("nextedge."):
                yield name.removeprefix("nextedge.")


def circles(graph: nx.DiGraph[str]) -> set[str]:
    """Groups of nodes that reach each other, each as one line."""
    return {
        " ".join(sorted(group))
        for group in nx.strongly_connected_components(graph)
        if len(group) > 1
    }


def siblings(graph: nx.DiGraph[str], folder: str) -> nx.DiGraph[str]:
    """Which member of a folder (a module or a folder) imports which other."""
    prefix = folder + "." if folder else ""
    result: nx.DiGraph[str] = nx.DiGraph()
    for pair in graph.edges:
        if all(name.startswith(prefix) for name in pair):
            left, right = (name.removeprefix(prefix).split(".")[0] for name in pair)
            if left != right:
                result.add_edge(prefix + left, prefix + right)
    return result


@pytest.fixture(scope="module")
def graph() -> nx.DiGraph[str]:
    return import_graph(ROOT)


def test_every_module_belongs_to_a_layer(graph: nx.DiGraph[str]) -> None:
    assert {name.split(".")[0] for name in graph} - {""} <= set(PLACES)


def test_imports_go_down_the_layers(graph: nx.DiGraph[str]) -> None:
    found = set()
    for left, right in graph.edges:
        above, below = left.split(".")[0], right.split(".")[0]
        if left and above != below and PLACES[above] >= PLACES[below]:
            found.add(f"{left} imports {right}")
    assert not found


def test_no_circle_of_modules(graph: nx.DiGraph[str]) -> None:
    assert not circles(graph)


def test_no_ring_of_folders(graph: nx.DiGraph[str]) -> None:
    """At any level, among the folders and modules of one folder."""
    folders = {name.rpartition(".")[0] for name in graph}
    assert not {ring for folder in folders for ring in circles(siblings(graph, folder))}


def test_the_walk_sees_what_it_should(tmp_path: Path) -> None:
    """A module in a function, one for typing, one by its package: all count."""
    files = {
        "a/one.py": "def f():\n    from nextedge.b.two import x\n",
        "b/two.py": "if TYPE_CHECKING:\n    from nextedge.a import one\n",
        "b/three.py": "import nextedge.a.one\n",
    }
    for name in ("__init__.py", "a/__init__.py", "b/__init__.py", *files):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(files.get(name, ""))
    graph = import_graph(tmp_path)
    assert set(graph.edges) == {("a.one", "b.two"), ("b.two", "a.one"), ("b.three", "a.one")}
    assert circles(graph) == {"a.one b.two"}
    assert circles(siblings(graph, "")) == {"a b"}


def test_layers_name_a_package_once() -> None:
    for left, right in combinations(LAYERS, 2):
        assert not set(left.split()) & set(right.split())
