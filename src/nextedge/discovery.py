"""How plug-ins are found: every module of a package is imported, every named subclass counts."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

Kind = TypeVar("Kind")


def import_modules(package: str) -> None:
    """Import every module below a package, so that what they register or derive is known."""
    path = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(path, f"{package}."):
        importlib.import_module(module.name)


def named_subclasses(base: type[Kind]) -> dict[str, type[Kind]]:
    """Subclasses that have a ``name``, by it: not in the order of imports, which differs by process."""
    found: dict[str, type[Kind]] = {}
    for child in base.__subclasses__():
        if name := getattr(child, "name", None):
            found[name] = child
        found |= named_subclasses(child)
    return dict(sorted(found.items()))
