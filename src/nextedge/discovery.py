"""Discovery of sources, models, features, policy rules, stores and importers.

Each kind has a base class, a package of NextEdge whose modules are all imported, and an entry point
group ``nextedge.KIND`` for classes of other packages. No list names the classes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from nextedge.errors import PluginError

Kind = TypeVar("Kind")


def discover(base: type[Kind], package: str, group: str | None = None) -> dict[str, type[Kind]]:
    """Every named subclass of ``base``, by name.

    Args:
        package: package of the built-in classes.
        group: entry point group of other packages; None if they cannot add classes.

    Raises:
        PluginError: an entry point cannot be loaded, or two classes have one name.
    """
    import_modules(package)
    if group is not None:
        load_entry_points(group, base)  # type: ignore[arg-type]  # classes are hashable
    return named_subclasses(base)


@cache
def import_modules(package: str) -> None:
    """Import every module below a package, so that all its classes are defined."""
    path = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(path, f"{package}."):
        importlib.import_module(module.name)


@cache
def load_entry_points(group: str, base: type | None = None) -> None:
    """Import the entry points of a group: classes of ``base``, or modules with such classes.

    Raises:
        PluginError: an entry point cannot be loaded or has another type; names the package.
    """
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        try:
            loaded = entry.load()
        except Exception as error:  # a package of others may raise anything
            raise PluginError(
                f"{_described(entry)} cannot be loaded: {type(error).__name__}: {error}; "
                "mend the package or uninstall it"
            ) from error
        if base is not None and not (inspect.ismodule(loaded) or _is_named(loaded, base)):
            raise PluginError(
                f"{_described(entry)} is {loaded!r}; expected a module, or a subclass of "
                f"{base.__module__}.{base.__name__} with a name"
            )


def _is_named(loaded: object, base: type) -> bool:
    named = isinstance(loaded, type) and issubclass(loaded, base)
    return named and isinstance(getattr(loaded, "name", None), str)


def _described(entry: EntryPoint) -> str:
    package = "?" if entry.dist is None else entry.dist.name
    return f"package {package!r}: entry point {entry.name!r} = {entry.value!r} of {entry.group}"


def named_subclasses(base: type[Kind]) -> dict[str, type[Kind]]:
    """Subclasses that have a ``name``, by name.

    Raises:
        PluginError: two classes have one name.
    """
    classes: dict[str, type[Kind]] = {}
    for child in base.__subclasses__():
        named = {child.name: child} if getattr(child, "name", None) else {}  # type: ignore[attr-defined]
        for name, cls in (named | named_subclasses(child)).items():
            other = classes.setdefault(name, cls)
            if path_of(other) != path_of(cls):
                raise PluginError(
                    f"{path_of(cls)} and {path_of(other)} are both named {name!r}; "
                    "rename the one that is not part of NextEdge, or uninstall its package"
                )
    # by name, as the order of imports differs from process to process
    return dict(sorted(classes.items()))


def path_of(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"
