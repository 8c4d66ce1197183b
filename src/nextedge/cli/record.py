"""Commands of the event line: record and replay."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextedge.cli import render
from nextedge.errors import DataError, InputError, NextEdgeError

if TYPE_CHECKING:
    from nextedge.data.event_files import EventLine
    from nextedge.recommender import Recommender

ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="nextedge.toml, or a folder")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines")]
_DEFAULT = Path("nextedge.toml")
_BATCH = 2000
_SHOWN = 20
"""Faults that are printed; the others are counted."""


def _recommender(config: Path) -> Recommender:
    from nextedge.recommender import Recommender

    return Recommender(config)


def record(
    events: Annotated[
        Path | None, typer.Argument(help="JSON lines, one event each; - for stdin")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="the same: .jsonl, .csv (also with .gz) or .parquet"),
    ] = None,
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Append events; malformed ones are named and left out, the rest is kept. Can be run again."""
    path = events or source
    if path is None or (events and source):
        raise InputError("give the events once: nextedge record EVENTS.jsonl, or --from FILE")
    recommender = _recommender(config)
    with _as_file(path) as file:
        accepted, stored, faults = _record_all(recommender, file, path)
    if as_json:
        render.print_json({"stored": stored, "repeated": accepted - stored, "rejected": faults})
    else:
        for fault in faults[:_SHOWN]:
            render.err.print(fault, markup=False, soft_wrap=True)
        if len(faults) > _SHOWN:
            render.err.print(f"… and {len(faults) - _SHOWN:,} more")
    summary = f"{stored:,} events stored, {accepted - stored:,} repeated, {len(faults):,} rejected"
    render.err.print(summary)
    if faults and not accepted:
        raise typer.Exit(2)


@contextmanager
def _as_file(path: Path) -> Iterator[Path]:
    """The file; what comes on stdin is written to one first, as its ids come of its whole content."""
    if str(path) != "-":
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        yield Path(kept.name)


def _record_all(recommender: Recommender, file: Path, named: Path) -> tuple[int, int, list[str]]:
    """(fit, new among them, faults) of a file, recorded batch by batch."""
    from nextedge.data.event_files import read_events

    accepted = stored = read = 0
    faults: list[str] = []
    lines = read_events(file)
    with render.progress_bar() as progress:
        try:
            for batch in _batches(lines):
                fit = [(line.number, line.raw) for line in batch if line.raw is not None]
                done = recommender.record_each([raw for _, raw in fit])
                refused = [(line.number, line.fault) for line in batch if line.raw is None]
                refused += [(fit[each.index][0], each.reason) for each in done.rejected]
                faults += [f"{named}: line {number}: {why}" for number, why in sorted(refused)]
                accepted, stored = accepted + done.accepted, stored + done.stored
                read += len(batch)
                progress(f"recording {named}", read, 0)
        except NextEdgeError:
            render.err.print(
                f"stopped after {read:,} lines, {stored:,} events stored; run it again: what is "
                "stored counts once"
            )
            raise
    return accepted, stored, faults


def _batches(lines: Iterator[EventLine]) -> Iterator[list[EventLine]]:
    """Lines by the batch; those before a damaged place are given before it is told of."""
    batch: list[EventLine] = []
    try:
        for line in lines:
            batch.append(line)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except DataError:
        yield batch
        raise
    yield batch


def replay(
    since: Annotated[str, typer.Option(help="a time (2026-01-31T12:00:00Z), or a position")],
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Fold the event log anew, and let its consumers have all events again since a time."""
    done = _recommender(config).replay_events(since)
    if as_json:
        render.print_json(done.to_json())
    else:
        count = sum(done.events.values())
        render.out.print(f"{count:,} events since {done.to_json()['since']}", soft_wrap=True)
        rows = [(name, f"{count:,}") for name, count in done.events.items()]
        render.table("", ("type", "events"), rows)
        render.out.print(
            f"folded {done.folded:,} events; rewound: {', '.join(done.groups) or 'no group'}; the "
            f"state is {'the same' if done.equal else 'another one than before'}",
            soft_wrap=True,
        )
    if not done.equal:
        raise typer.Exit(1)
