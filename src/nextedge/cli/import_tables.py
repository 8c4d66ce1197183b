"""``nextedge import``: public data sets as our tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import AsJson
from nextedge.errors import InputError, nearest


def import_tables(
    layout: Annotated[
        str, typer.Argument(help="format of the files: movielens, edges, or one of a plug-in")
    ],
    source: Annotated[Path, typer.Argument(help="file or folder to read")],
    directory: Annotated[Path, typer.Argument(help="folder to write our tables to")],
    as_json: AsJson = False,
) -> None:
    """Convert a public data set into our tables."""
    from nextedge.data.importers.importer import importers

    known = importers()
    if layout not in known:
        raise InputError(f"no format {layout!r}; {nearest(layout, known)}")
    report = known[layout].run(source, directory)
    if as_json:
        render.print_json({"tables": report.tables, "notes": list(report.notes)})
        return
    for name, rows in report.tables.items():
        render.say(f"{directory / name}.parquet: {rows:,} rows")
    for note in report.notes:
        render.say(f"  {note}")
