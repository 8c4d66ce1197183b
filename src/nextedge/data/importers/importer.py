"""The contract of an importer: ``nextedge import NAME SOURCE DIR`` writes our tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nextedge.discovery import discover


@dataclass(frozen=True)
class ImportReport:
    """Rows written per table, and notes on decisions that the user should know."""

    tables: dict[str, int]
    notes: tuple[str, ...] = ()


class Importer(ABC):
    """An importer of one public format.

    A new importer is one file in this package, or in one that offers it by the entry point group
    ``nextedge.importers``: a subclass with a ``name``.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line on what the source must be."""

    @abstractmethod
    def run(self, source: Path, target: Path) -> ImportReport:
        """Write the tables as Parquet into ``target``; files of the same names are replaced.

        Args:
            target: a folder, which is made if needed.

        Raises:
            DataError: the source is not of the format; the message names file and line.
        """


def importers() -> dict[str, Importer]:
    """Every importer by name: those of this package, and those of plug-ins."""
    classes = discover(Importer, "nextedge.data.importers", "nextedge.importers")  # type: ignore[type-abstract]
    return {name: cls() for name, cls in classes.items()}
