"""``nextedge record`` and ``replay``: append events, and read them again."""

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
from nextedge.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile, open_recommender
from nextedge.errors import DataError, InputError, NextEdgeError

if TYPE_CHECKING:
    from nextedge.data.event_files import EventLine
    from nextedge.recommender import Recommender

_BATCH = 2000
_MOST_PRINTED = 20
"""Faults that are printed; the others are counted."""


def record(
    events: Annotated[
        Path | None, typer.Argument(help="file of JSON lines, one event each; - is stdin")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="file of events: .jsonl, .csv (also .gz) or .parquet"),
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Append events to the event log.

    Malformed events are listed and left out. An event that is recorded again counts once, so it
    is safe to run the command again.
    """
    path = events or source
    if path is None or (events and source):
        raise InputError("give the events once: nextedge record EVENTS.jsonl, or --from FILE")
    recommender = open_recommender(config)
    with _as_file(path) as file:
        accepted, stored, faults = _record_all(recommender, file, path)
    if as_json:
        render.print_json({"stored": stored, "repeated": accepted - stored, "rejected": faults})
    else:
        for fault in faults[:_MOST_PRINTED]:
            render.warn(fault)
        if len(faults) > _MOST_PRINTED:
            render.warn(f"… and {len(faults) - _MOST_PRINTED:,} more")
    summary = f"{stored:,} events stored, {accepted - stored:,} repeated, {len(faults):,} rejected"
    render.warn(summary)  # on stderr: with --json, stdout has the JSON alone
    if faults and not accepted:
        raise typer.Exit(2)


@contextmanager
def _as_file(path: Path) -> Iterator[Path]:
    """The file itself, or a copy of stdin."""
    if str(path) != "-":
        yield path
        return
    # events without an id get one from the content of the whole file, so stdin is stored first
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield Path(copy.name)


def _record_all(recommender: Recommender, file: Path, name: Path) -> tuple[int, int, list[str]]:
    """Record a file in batches; returns its valid events, the new ones among them, and faults."""
    from nextedge.data.event_files import read_events

    accepted = stored = read = 0
    faults: list[str] = []
    lines = read_events(file)
    with render.progress_bar() as progress:
        try:
            for batch in _batches(lines):
                valid = [(line.number, line.raw) for line in batch if line.raw is not None]
                done = recommender.record_each([raw for _, raw in valid])
                refused = [(line.number, line.fault) for line in batch if line.raw is None]
                refused += [
                    (valid[rejected.index][0], rejected.reason) for rejected in done.rejected
                ]
                # Sorted into the order of the file.
                faults += [f"{name}: line {number}: {why}" for number, why in sorted(refused)]
                accepted, stored = accepted + done.accepted, stored + done.stored
                read += len(batch)
                progress(f"recording {name}", read, 0)
        except NextEdgeError:
            render.warn(
                f"stopped after {read:,} lines, {stored:,} events stored; run it again: a stored "
                "event counts once"
            )
            raise
    return accepted, stored, faults


def _batches(lines: Iterator[EventLine]) -> Iterator[list[EventLine]]:
    """Lines in batches."""
    batch: list[EventLine] = []
    try:
        for line in lines:
            batch.append(line)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except DataError:
        yield batch  # the lines before the damage are valid
        raise
    yield batch


def replay(
    since: Annotated[str, typer.Option(help="time (2026-01-31T12:00:00Z) or position of the log")],
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Rebuild the live state, and rewind the log's consumers.

    The whole log is folded again; each consumer reads the events since a time once more. The
    command exits 1 if the state differs from the one before.
    """
    done = open_recommender(config).replay_events(since)
    if as_json:
        render.print_json(done.to_json())
    else:
        count = sum(done.events.values())
        render.say(f"{count:,} events since {done.to_json()['since']}")
        rows = [(name, f"{count:,}") for name, count in done.events.items()]
        render.table("", ("type", "events"), rows)
        render.say(
            f"folded {done.folded:,} events; rewound: {', '.join(done.groups) or 'no group'}; the "
            f"state is {'the same' if done.equal else 'not the same as before'}"
        )
    if not done.equal:
        raise typer.Exit(1)
