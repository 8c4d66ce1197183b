"""``nextedge forget``: erase a user."""

from __future__ import annotations

from typing import Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile, open_recommender


def forget(
    user: Annotated[str, typer.Argument(help="id of the user, as in your tables")],
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Erase the data of a user; later builds leave the user out.

    It is safe to run the command again.
    """
    erased = open_recommender(config).forget(user)
    if as_json:
        render.print_json(erased.to_json())
        return
    render.say(
        f"forgotten: {erased.releases} releases rewritten, {erased.events} events and "
        f"{erased.requests} logged requests erased"
    )
