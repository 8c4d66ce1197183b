"""The report of ``nextedge check``: used and dropped rows by table, with reasons."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Action = Literal["dropped", "kept", "merged", "converted", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault or remark on a table: number of rows, action, and examples.

    An example reads ``row 3: src=7, dst=7``; rows count from 1, without a header.
    """

    code: str
    text: str
    rows: int
    action: Action
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table: location, rows read and used, findings, columns and time span.

    ``rows_read`` is ``rows_used`` plus the rows of all findings that are dropped or merged. A row
    counts under its first finding.
    """

    table: str
    location: str
    rows_read: int
    rows_used: int
    findings: tuple[Finding, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)  # types in the clean table
    kinds: dict[str, str] = field(default_factory=dict)  # kinds by column, or ``ignored``
    first: str | None = None
    last: str | None = None

    @property
    def dropped(self) -> int:
        """Rows that are not used."""
        return self.rows_read - self.rows_used


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All tables of a tenant, and the faults that stop a build (exit 2)."""

    tables: tuple[TableReport, ...]
    fatal: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return asdict(self)
