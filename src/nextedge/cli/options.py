"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nextedge.config import Config
    from nextedge.data.partition import Part
    from nextedge.recommender import Recommender
    from nextedge.releases.repository import Releases

Where = Annotated[Path | None, typer.Argument(help="folder of tables, or a nextedge.toml")]
ConfigFile = Annotated[
    Path, typer.Option("-c", "--config", help="nextedge.toml, or the folder that holds it")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON on stdout, for machines")]
EngineName = Annotated[str, typer.Option("--engine", help="engine to run on: local or spark")]
Partition = Annotated[
    str | None, typer.Option(help="only this part of the users: 0/4, 1/4, 2/4 or 3/4")
]
ReleaseId = Annotated[str, typer.Argument(help="id of the release")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0 = a free one")]
Host = Annotated[str, typer.Option(help="address to listen on")]
DEFAULT_CONFIG = Path("nextedge.toml")

# The package's modules load NumPy, Arrow and Numba. A command imports those it needs in its body,
# so that `--help` and the light commands start at once; tests/unit/test_imports.py holds that.


def open_config(location: Path) -> Config:
    """The settings of a ``nextedge.toml`` or of a folder."""
    from nextedge.config import load_config

    return load_config(location)


def open_releases(location: Path) -> Releases:
    """The releases of a tenant, without the engine that answers requests."""
    from nextedge.releases.shared import open_releases

    return open_releases(open_config(location))


def open_recommender(location: Path) -> Recommender:
    """The recommender of a tenant."""
    from nextedge.recommender import Recommender

    return Recommender(location)


def parse_part(text: str | None) -> Part | None:
    """The part of the users that ``--partition`` names.

    Raises:
        InputError: the text is not such as 0/4.
    """
    from nextedge.data.partition import Part

    return None if text is None else Part.parse(text, "--partition")
