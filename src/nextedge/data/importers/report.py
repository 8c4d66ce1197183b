"""What an importer wrote, and what it had to decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImportReport:
    """Rows written per table, and decisions that the reader should know of."""

    tables: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Importer:
    """One public format: ``run(source, target_directory)`` writes our tables as Parquet.

    ``run`` raises DataError when the source is not of the format, naming file and line.
    """

    name: str
    summary: str
    run: Callable[[Path, Path], ImportReport]
