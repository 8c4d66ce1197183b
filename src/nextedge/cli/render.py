"""Print results on stdout, progress and messages on stderr: text for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from nextedge.evaluation.tables import TableRows
    from nextedge.progress import Progress

_PIPE_WIDTH = 200


def say(text: str) -> None:
    """Print one line on stdout. Styles of ``typer.style`` are dropped where it is no terminal."""
    typer.echo(text)


def warn(text: str) -> None:
    """Print one line on stderr."""
    typer.echo(text, err=True)


def bold(text: str) -> str:
    """Text that a terminal shows in bold."""
    return typer.style(text, bold=True)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def console() -> Console:
    """The console that draws tables on stdout."""
    from rich.console import Console

    # ids and paths are printed as they are, even where they look like markup or an emoji
    out = Console(highlight=False, emoji=False, markup=False)
    if not out.is_terminal:  # a file or a pipe has no edge at which figures would be cut off
        out.width = max(out.width, _PIPE_WIDTH)
    return out


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show the steps of a long run on stderr: a bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        last = ""

        def line(text: str, done: int, total: int) -> None:
            nonlocal last
            if text != last:  # a log gets one line a step, not one a row
                last = text
                warn(text)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    # On stderr, as stdout may be a pipe of results.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(text: str, done: int, total: int) -> None:
            bar.update(task, description=text, completed=done, total=total)

        yield show


def table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    bold: int | None = None,
    left: Sequence[int] = (0,),
    fold: bool = False,
) -> None:
    """Draw a table.

    Args:
        bold: index of the row that is shown in bold.
        left: indexes of the columns that are aligned to the left.
        fold: break long cells into lines; otherwise they are cut off at the terminal's edge.
    """
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, name in enumerate(header):
        drawn.add_column(
            name,
            justify="left" if index in left else "right",
            no_wrap=not fold,
            overflow="fold" if fold else "ellipsis",
        )
    for index, row in enumerate(rows):
        drawn.add_row(*row, style="bold" if index == bold else None)
    console().print(drawn)


def print_rows(rows: TableRows) -> None:
    """Draw a table of the evaluation, cut by columns into tables that fit the terminal."""
    from nextedge.evaluation.tables import fit

    for part in fit(rows, max(console().width, 60)):
        table(part.title, part.header, part.rows, bold=part.best)
        say("")
