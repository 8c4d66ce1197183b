"""``nextedge keys``: API keys of the HTTP service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile, open_config

if TYPE_CHECKING:
    from nextedge.api.keys import ApiKeys

app = typer.Typer(
    help="Create, list and revoke API keys of 'nextedge serve'.", no_args_is_help=True
)


@app.command()
def create(
    scope: Annotated[
        list[str] | None, typer.Option(help="read (the default), write or admin; repeatable")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it, this once.

    The tenant's state keeps only a hash of the key.
    """
    key, token = _keys(config).create(tuple(scope or ("read",)))
    if as_json:
        render.print_json({"id": key.id, "key": token, "scopes": key.scopes})
        return
    render.say(f"{token}  (id {key.id}, {', '.join(key.scopes)}); it is not shown again")


@app.command("list")
def list_keys(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the ids and scopes of the API keys, oldest first."""
    keys = _keys(config).all()
    if as_json:
        render.print_json([{"id": k.id, "scopes": k.scopes, "created": k.created} for k in keys])
        return
    rows = [(key.id, ", ".join(key.scopes), key.created) for key in keys]
    render.table("API keys", ("id", "scopes", "created"), rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="id of the key, as 'nextedge keys list' prints it")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Refuse an API key from now on, in every worker."""
    _keys(config).revoke(key_id)
    render.say(f"key {key_id} is revoked")


def _keys(config: Path) -> ApiKeys:
    from nextedge.api.keys import ApiKeys

    return ApiKeys(open_config(config).state_path)
