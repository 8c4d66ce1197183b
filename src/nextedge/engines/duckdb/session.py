"""Open a DuckDB connection behind Ibis, and define Ibis tables from SELECTs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import ibis

# DuckDB types that Ibis has no name for, and the types that stand for them
_STAND_INS = {"TIMESTAMPTZ_NS": "TIMESTAMPTZ", "UHUGEINT": "VARCHAR", "BIT": "VARCHAR"}


class DuckDBSession:
    """One connection, with unique names for its tables and views.

    Args:
        settings: settings of DuckDB; None leaves a default.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import ibis

        self.ibis = ibis.duckdb.connect(
            **{name: value for name, value in settings.items() if value is not None}
        )
        self.connection: duckdb.DuckDBPyConnection = self.ibis.con
        for setting in (
            "TimeZone = 'UTC'",
            # row numbers count in the order of reading
            "preserve_insertion_order = true",
            "enable_progress_bar = false",
            # the page cache of the system has the files already; this one would double them
            "enable_external_file_cache = false",
        ):
            self.connection.execute(f"SET {setting}")
        self._names = (f"nextedge_{number}" for number in itertools.count())

    def register(self, rows: Any) -> tuple[str, ibis.Table]:
        """Register an Arrow table; returns its name in DuckDB and its Ibis table."""
        name = next(self._names)
        self.connection.register(name, rows)
        select = f"SELECT * FROM {name}"
        known = self._with_known_types(select)
        return name, self.ibis.table(name) if known == select else self.define(select)

    def define(self, select: str, *, materialise: bool = False) -> ibis.Table:
        """Define a view of a SELECT, or with ``materialise`` a table, which is evaluated once."""
        name = next(self._names)
        kind = "TABLE" if materialise else "VIEW"
        self.connection.execute(f"CREATE {kind} {name} AS {self._with_known_types(select)}")
        return self.ibis.table(name)

    def _with_known_types(self, select: str) -> str:
        casts = []
        for name, kind, *_ in self.connection.execute(f"DESCRIBE {select}").fetchall():
            if wanted := _STAND_INS.get(kind):
                column = quoted(name)
                casts.append(f"CAST({column} AS {wanted}) AS {column}")
        return f"SELECT * REPLACE ({', '.join(casts)}) FROM ({select})" if casts else select


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as an SQL string."""
    return "'" + value.replace("'", "''") + "'"
