"""``nextedge init`` writes every setting, and what it writes parses, with all of it switched on too."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from nextedge.cli.settings import sections
from nextedge.cli.template import template, write_template
from nextedge.config import Config, load_config, parse_config
from nextedge.schema import TABLES

NO_FILES = dict.fromkeys(TABLES)
FOLDERS = [
    NO_FILES,
    {**NO_FILES, "connections": "connections.csv"},
    {**NO_FILES, "interactions": "interactions.csv"},
    {name: f"{name}.parquet" for name in TABLES},
]


def uncommented(text: str) -> str:
    """The file with every setting switched on: a setting's line begins with "#name" or "#["."""
    return re.sub(r"(?m)^#(?=[^ #\n])", "", text)


@pytest.mark.parametrize("files", FOLDERS)
def test_the_file_parses_as_it_is_and_with_every_setting_on(files: dict[str, str | None]) -> None:
    text = template("a tenant", files)
    for toml in (text, uncommented(text)):
        config = parse_config(tomllib.loads(toml), base=Path(), origin="nextedge.toml")
        assert config.tenant == "a-tenant"
        assert {name for name, _ in config.data.sources()} >= {k for k, v in files.items() if v}


def test_every_setting_is_in_the_file_with_its_default() -> None:
    values = tomllib.loads(uncommented(template("tenant", NO_FILES)))
    count = 0
    for section in sections(Config):
        table = values
        for part in section.path:
            table = table[part]
        for setting in section.settings:
            count += 1
            assert setting.name in table, f"{section.name}.{setting.name}"
            if setting.default not in (None, {}, "default"):
                default = setting.default
                expected = list(default) if isinstance(default, tuple) else default
                assert table[setting.name] == expected, f"{section.name}.{setting.name}"
    assert count > 110


def test_the_file_changes_nothing(tmp_path: Path) -> None:
    path = write_template(tmp_path)
    written, bare = load_config(path), parse_config({}, base=tmp_path, origin="none")
    assert written.model_copy(update={"tenant": "default", "surfaces": {}}) == bare
