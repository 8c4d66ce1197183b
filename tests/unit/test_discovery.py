"""Discovery: entry points of other packages, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from nextedge import discovery
from nextedge.discovery import discover, load_entry_points, named_subclasses
from nextedge.errors import PluginError
from nextedge.features.feature import feature_group


class Base:
    """A base of plug-ins."""


class First(Base):
    name = "first"


class Helper(Base):
    """It has no name, and so is none itself."""


class Second(Helper):
    name = "second"


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points that packages offer."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr(discovery, "entry_points", lambda group: entries)
    load_entry_points.cache_clear()
    yield entries
    load_entry_points.cache_clear()


def entry(value: str) -> EntryPoint:
    made = EntryPoint("theirs", value, "nextedge.tests")
    object.__setattr__(made, "dist", SimpleNamespace(name="their-package"))
    return made


def test_subclasses_with_a_name_are_found_by_it() -> None:
    assert named_subclasses(Base) == {"first": First, "second": Second}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module", "ModuleNotFoundError"),
        ("json:no_such_name", "AttributeError"),
        ("json:loads", "expected a module, or a subclass of .*Base"),
    ],
)
def test_a_broken_entry_point_is_named_with_its_package(
    offered: list[EntryPoint], value: str, message: str
) -> None:
    offered.append(entry(value))
    with pytest.raises(PluginError, match=f"'their-package': entry point 'theirs'.*{message}"):
        discover(Base, "nextedge.data.importers", "nextedge.tests")


def test_modules_and_classes_are_taken(offered: list[EntryPoint]) -> None:
    offered += [entry("json"), entry(f"{__name__}:First")]
    assert "first" in discover(Base, "nextedge.data.importers", "nextedge.tests")


def test_a_name_that_is_taken_is_refused() -> None:
    class Other(Base):
        name = "first"

    with pytest.raises(PluginError, match=r"Other and .*First are both named 'first'|First and"):
        named_subclasses(Base)
    Other.name = "other"


def test_a_feature_group_with_a_name_that_is_taken_is_refused() -> None:
    def compute(given: Any) -> dict[str, Any]:
        return {}

    import nextedge.features.activity_features  # noqa: F401

    with pytest.raises(PluginError, match="both have a feature group 'activity'"):
        feature_group("activity", lambda _: ())(compute)
