"""What ``nextedge check`` reports: per table, what is used and what is not, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Action = Literal["dropped", "kept", "merged", "converted", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found in a table: how many rows, what was done with them, and examples."""

    code: str
    text: str
    rows: int
    action: Action
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table: where it is, rows read and used, findings, columns and time span."""

    table: str
    location: str
    rows_read: int
    rows_used: int
    findings: tuple[Finding, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    first: str | None = None
    last: str | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All tables of a tenant."""

    tables: tuple[TableReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return asdict(self)
