"""``nextedge stream``: real-time features by Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile, open_config
from nextedge.errors import InputError


def stream(
    checkpoint: Annotated[
        Path, typer.Option(help="folder of this job alone, on a disk that all of Spark sees")
    ],
    source: Annotated[
        str | None,
        typer.Option("--from", help="folder of JSON lines, or kafka://…; default: events.broker"),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="stop after the events that are there now")
    ] = False,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Add events to the real-time features in the store, by Spark.

    A job that was stopped resumes at its checkpoint.
    """
    from nextedge.events.stream import run_stream

    settings = open_config(config)
    source = source or settings.events.broker
    if source is None:
        raise InputError("give --from FOLDER or --from kafka://…, or set events.broker")

    def report(batch: int, facts: int) -> None:
        render.warn(f"batch {batch}: {facts} facts")

    batches = run_stream(settings, source, checkpoint, until_done=once, told=report)
    if as_json:
        render.print_json({"batches": batches})
