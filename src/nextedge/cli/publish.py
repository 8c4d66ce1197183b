"""``nextedge publish``: candidate lists that are computed before a request asks for them."""

from __future__ import annotations

from typing import Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigFile,
    EngineName,
    Partition,
    open_recommender,
    parse_part,
)
from nextedge.errors import InputError


def publish(
    release: Annotated[
        str | None, typer.Option(help="id of a release; default: the served release")
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="at most this many; latest active users first")
    ] = None,
    partition: Partition = None,
    engine: EngineName = "local",
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Compute candidate lists ahead, and store them.

    A run that was stopped resumes where it stopped.
    """
    from nextedge.cli.batch import publish_all
    from nextedge.engines.open import open_engine

    recommender, part = open_recommender(config), parse_part(partition)
    if part is not None and engine != "local":
        raise InputError("--partition goes with the local engine; Spark makes parts of its own")
    with render.progress_bar() as progress:
        if engine == "local":
            lists = recommender.publish(release, users=users, part=part, progress=progress)
        else:
            with open_engine(engine, recommender.config.state_path) as opened:
                lists = publish_all(opened, recommender, release, users, progress)
    if as_json:
        render.print_json({"lists": lists})
        return
    render.say(f"{lists:,} candidate lists are stored")
