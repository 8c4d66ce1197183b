"""``nextedge serve`` and ``serve-shard``: the processes that answer requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextedge.cli.options import DEFAULT_CONFIG, ConfigFile, Host, Port, Where, open_config
from nextedge.errors import InputError


def serve(
    where: Where = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, help="processes that answer")] = 1,
    drain_seconds: Annotated[
        float,
        typer.Option(min=0, help="go on answering after SIGTERM, while /health/ready gives 503"),
    ] = 1.0,
    config: Annotated[
        list[Path] | None,
        typer.Option("-c", "--config", help="nextedge.toml or its folder; one for each tenant"),
    ] = None,
    tenants: Annotated[
        Path | None, typer.Option(help="folder of tenants' folders; each is served")
    ] = None,
) -> None:
    """Serve the promoted release over HTTP.

    One server serves one tenant or several. OpenAPI is at /docs.
    """
    from nextedge.api.server import run_server, tenants_below

    locations = [*([where] if where else []), *(config or [])]
    if tenants is not None:
        if locations:
            raise InputError("give either --tenants DIR, or each tenant by -c")
        locations = tenants_below(tenants)
    run_server(locations or [DEFAULT_CONFIG], host, port, workers, drain_seconds)


def serve_shard(
    shard: Annotated[str, typer.Argument(help="part of every sharded index: 0/8 to 7/8")],
    host: Host = "127.0.0.1",
    port: Port = 8100,
    socket: Annotated[
        Path | None, typer.Option(help="listen on this Unix socket instead of host and port")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Search a part of the sharded indexes for 'nextedge serve'."""
    from nextedge.data.partition import Part
    from nextedge.serving.shards.server import run_shard_server

    run_shard_server(open_config(config), Part.parse(shard, "SHARD"), host, port, socket)
