"""A ``nextedge.toml`` to start from: every setting, with its default and what it does."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nextedge.cli.settings import Section, sections, toml_value
from nextedge.config import FILE_NAME, Config, find_table_file
from nextedge.errors import InputError
from nextedge.schema import TABLES
from nextedge.storage.files import replace_file

_HEAD = """\
# Settings of one tenant. Each has a default: the lines that begin with "#name" say it.
# Take away the "#" and change the value; delete what you do not need.
"""
_ORDER = ("", "data", "surfaces", "features", "serving", "events", "onboarding", "split")
"""The first part of a section's path, most used first; the others come after."""
_UNCOMMENTED = {"tenant", "state", "surfaces.people.k", "surfaces.people.candidates"}
_EXAMPLES: dict[str, Any] = {
    "data.columns": {"connections": {"src": "from_user", "dst": "to_user"}},
    "features.users.categorical": ["company", "school", "city"],
    "features.users.numeric": ["age"],
    "features.users.text": ["bio"],
    "features.users.tags": ["skills"],
    "features.items.categorical": ["category"],
    "features.items.numeric": ["price"],
    "features.items.text": ["description"],
    "features.items.tags": ["regions"],
    "features.text_model": "./model",
    "serving.store": "redis://localhost:6379",
    "serving.candidates_store": "redis://localhost:6379",
    "serving.burst": 100,
    "serving.traces": "http://localhost:4318",
    "events.log": "redis://localhost:6379",
    "events.broker": "kafka://localhost:9092/events",
    "build.memory_gib": 18,
    "surfaces.people.kind": "people",
    "surfaces.people.sources.two_hop.limit": 1500,
    "surfaces.people.policy.max_per": {"company": 5},
    "surfaces.people.policy.freshness_half_life_days": 30,
    "surfaces.people.ranker.action_weights": {"purchase": 5, "dismiss": 3},
    "surfaces.people.contexts.mobile.k": 10,
}
"""What a line shows for a setting whose default is no value, or an empty table."""


def write_template(directory: Path) -> Path:
    """Write ``nextedge.toml`` into a folder, with the table files that are there.

    Raises:
        InputError: the folder has one already.
    """
    path = directory / FILE_NAME
    if path.exists():
        raise InputError(f"{path} exists already; edit it, or remove it first")
    directory.mkdir(parents=True, exist_ok=True)
    files = {name: find_table_file(directory, name) for name in TABLES}
    text = template(directory.resolve().name, files)
    replace_file(path, text.encode())
    return path


def template(folder: str, files: dict[str, str | None]) -> str:
    """The text of the file.

    Args:
        folder: name of the folder, which names the tenant if it can.
        files: table name = its file, or None.
    """
    # The characters and the length that a tenant's name may have.
    tenant = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder).strip("-")[:64] or "default"
    people, items = files["connections"], files["interactions"]
    # A folder without either table gets both surfaces as examples.
    surfaces = ["people"] * bool(people or not items) + ["items"] * bool(items or not people)
    lines, others = [_HEAD], [_other_surface(name, surfaces[0]) for name in surfaces[1:]]
    for section in sorted(sections(Config), key=_position):
        if _position(section) > _ORDER.index("surfaces"):
            lines, others = [*lines, *others], []
        name = section.name.replace("surfaces.people", f"surfaces.{surfaces[0]}")
        if name:
            active = name in ("data", f"surfaces.{surfaces[0]}")
            lines += ["", *_comment(section.description.partition("\n\n")[0])]
            lines.append(f"[{name}]" if active else f"#[{name}]")
        values = {"tenant": tenant, **{f"data.{table}": file for table, file in files.items()}}
        lines += _settings(section, values)
    text = "\n".join(lines) + "\n"
    return text if surfaces[0] == "people" else _for_items(text)


def _other_surface(name: str, first: str) -> str:
    return f"""
# Every setting of [surfaces.{first}] and of the sections below it can be set for {name} as well.
[surfaces.{name}]
k = 20
candidates = 1500
#[surfaces.{name}.policy]
#max_per = {{ category = 3 }}"""


def _for_items(text: str) -> str:
    """The text with examples that fit items."""
    text = text.replace("sources.two_hop", "sources.item_knn").replace(
        'kind = "people"', 'kind = "items"'
    )
    return text.replace("{ company = 5 }", "{ category = 3 }")


def _position(section: Section) -> int:
    first = section.path[0] if section.path else ""
    return _ORDER.index(first) if first in _ORDER else len(_ORDER)


def _settings(section: Section, values: dict[str, Any]) -> Iterator[str]:
    """The lines of a section's settings; ``values`` are those of this tenant."""
    for setting in section.settings:
        key = f"{section.name}.{setting.name}".lstrip(".")
        table = setting.name if section.name == "data" and setting.name in TABLES else None
        if table is None:
            yield from _comment(setting.description)
        value = setting.default
        if value is None or value == {}:
            value = _EXAMPLES.get(key, f"{table}.parquet" if table else value)
        value = values.get(key) or value
        mark = "" if key in _UNCOMMENTED or values.get(key) else "#"
        unset = setting.default in (None, {}) and table is None
        yield f"{mark}{setting.name} = {toml_value(value)}{'    # by default unset' * unset}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent="# ", subsequent_indent="# ")
