"""``nextedge contacts``: an address book from a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from nextedge.cli import render
from nextedge.errors import InputError


def contacts(
    user: Annotated[str, typer.Argument(help="whose address book it is")],
    file: Annotated[Path, typer.Argument(help="CSV; every cell with an @ or a +number counts")],
    consent: Annotated[
        bool, typer.Option("--consent", help="the user agreed that contacts are matched")
    ] = False,
    own: Annotated[
        list[str] | None, typer.Option(help="an identifier of the user's own; repeatable")
    ] = None,
    config: Annotated[
        Path, typer.Option("-c", "--config", help="nextedge.toml, or a folder")
    ] = Path("nextedge.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines")] = False,
) -> None:
    """Keep a user's address book, as hashes, to recommend members who are in it."""
    from nextedge.recommender import Recommender

    upload = Recommender(config).contacts.put(
        user, own=own or None, contacts=read_book(file), consent=consent
    )
    if as_json:
        render.print_json(
            {
                "stored": upload.stored,
                "refused": len(upload.refused),
                "left_today": upload.left_today,
            }
        )
        return
    render.out.print(f"{upload.stored:,} contacts kept, {len(upload.refused):,} cannot be read")


def read_book(file: Path) -> list[str]:
    """The cells of a CSV file that look like an e-mail address or an international number.

    Raises:
        InputError: the file is missing, is not UTF-8, or no cell looks like either.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as rows:
            cells = [cell.strip() for row in csv.reader(rows) for cell in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{file}: cannot be read ({error}); expected a CSV file in UTF-8"
        ) from None
    found = [cell for cell in cells if "@" in cell or cell.startswith(("+", "00"))]
    if not found:
        raise InputError(f"{file}: no e-mail address and no +number; expected one a cell")
    return found
