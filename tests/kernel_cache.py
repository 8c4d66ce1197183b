"""Where compiled kernels are cached between runs of the tests."""

from __future__ import annotations

import ast
import hashlib
import shutil
from pathlib import Path

KEPT = 3


def kernel_cache(checkout: Path) -> Path:
    """The folder for the kernels of this code; folders of former code are removed.

    Numba compiles a kernel again when its own file has changed. A kernel may have another file's
    code inlined: therefore every change of code, in any file with kernels, gives a new folder.
    """
    digest = hashlib.sha256()
    for file in sorted((checkout / "src").rglob("*.py")):
        text = file.read_text()
        if "njit" in text:
            digest.update(f"{file.relative_to(checkout)}\0{_code(text)}\0".encode())
    parent = checkout / ".cache" / "numba"
    folder = parent / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    by_age = sorted(parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_age[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _code(text: str) -> str:
    """A module without what compiles to nothing: comments, layout, docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
