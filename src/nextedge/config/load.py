"""Reading of ``nextedge.toml``, or of a folder of tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nextedge import schema
from nextedge.config.settings import describe
from nextedge.config.tenant import Config
from nextedge.errors import ConfigError

FILE_NAME = "nextedge.toml"
FILE_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson")


def load_config(location: str | Path) -> Config:
    """Read a ``nextedge.toml``, or a folder that has one or has files named as the tables.

    A file that names no table uses the tables of its folder.

    Raises:
        ConfigError: the file is missing, is not TOML, or has an unknown or invalid setting;
            the message names the file, the setting and the nearest valid one.
    """
    path = Path(location)
    if path.is_dir():
        path = path / FILE_NAME
        if not path.exists():
            return config_from_directory(path.parent)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))  # TOML is UTF-8 in every locale
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; give a folder of tables, or write one with: nextedge init DIR"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    data = raw.get("data", {})
    # A [data] of a wrong type is for the model to refuse, by its name.
    if isinstance(data, dict) and not data.keys() & schema.TABLES.keys():
        raw["data"] = {**_table_files(path.parent), **data}
    return parse_config(raw, base=path.parent, origin=str(path))


def config_from_directory(directory: Path) -> Config:
    """Return the configuration of a folder without ``nextedge.toml``, whose files name the tables."""
    found = _table_files(directory)
    if not found:
        names = ", ".join(f"{name}.parquet" for name in schema.TABLES)
        raise ConfigError(
            f"{directory}: no {FILE_NAME} and no table file; expected one of {names} "
            f"(or .csv, .jsonl)"
        )
    return parse_config({"data": found}, base=directory, origin=str(directory))


def _table_files(directory: Path) -> dict[str, str]:
    """The tables of a folder, by the names of its files."""
    return {name: file for name in schema.TABLES if (file := find_table_file(directory, name))}


def find_table_file(directory: Path, table: str) -> str | None:
    """Return the file name of a table in a folder, or None; several files are an error."""
    found = [table + suffix for suffix in FILE_SUFFIXES if (directory / (table + suffix)).is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{directory}: table {table!r} is there more than once ({', '.join(found)}); "
            f"keep one, or name it in {FILE_NAME}"
        )
    return found[0] if found else None


def parse_config(raw: Mapping[str, Any], *, base: Path, origin: str) -> Config:
    """Validate raw settings; without surfaces, those that the tables allow are added."""
    settings = {**raw, "base": base}  # last: a file cannot set it
    settings["surfaces"] = _with_surface_kinds(raw.get("surfaces", {}), raw.get("data", {}))
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(describe(error, Config, origin)) from None


def _with_surface_kinds(surfaces: Any, data: Any) -> Any:
    """Give ``people`` and ``items`` their kind, and add them where their table is given."""
    # The model refuses other types, with the name of the setting.
    if not isinstance(surfaces, Mapping) or not isinstance(data, Mapping):
        return surfaces
    kinds: dict[str, Any] = {}
    for name, table in (("people", schema.CONNECTIONS), ("items", schema.INTERACTIONS)):
        if name in surfaces or (not surfaces and data.get(table)):
            kinds[name] = {"kind": name}
    merged = {
        # The file's own kind goes before the implied one.
        name: {**kinds.get(name, {}), **value} if isinstance(value, Mapping) else value
        for name, value in surfaces.items()
    }
    return {**kinds, **merged}
