"""``nextedge contacts``: an address book from a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile, open_recommender
from nextedge.errors import InputError


def contacts(
    user: Annotated[str, typer.Argument(help="id of the user who owns the address book")],
    file: Annotated[
        Path, typer.Argument(help="CSV file; each cell with an @ or a +number is a contact")
    ],
    consent: Annotated[
        bool, typer.Option("--consent", help="the user agreed that contacts are matched")
    ] = False,
    own: Annotated[
        list[str] | None, typer.Option(help="e-mail or number of the user; repeatable")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Store a user's address book as hashes.

    Members who are in it are recommended to the user.
    """
    upload = open_recommender(config).contacts.put(
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
    render.say(f"{upload.stored:,} contacts kept, {len(upload.refused):,} cannot be read")


def read_book(file: Path) -> list[str]:
    """The cells of a CSV file that look like an e-mail address or an international number.

    Raises:
        InputError: the file is missing, is not UTF-8, or no cell looks like either.
    """
    try:
        # Spreadsheets begin a CSV file with a byte order mark.
        with file.open(newline="", encoding="utf-8-sig") as rows:
            cells = [cell.strip() for row in csv.reader(rows) for cell in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{file}: cannot be read ({error}); expected a CSV file in UTF-8"
        ) from None
    # 00 stands for the + where a phone book writes numbers to dial.
    identifiers = [cell for cell in cells if "@" in cell or cell.startswith(("+", "00"))]
    if not identifiers:
        raise InputError(f"{file}: no e-mail address and no +number; expected one a cell")
    return identifiers
