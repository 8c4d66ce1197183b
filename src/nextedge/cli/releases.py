"""``nextedge releases``: list, compare, promote, try and delete releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile, ReleaseId, open_releases
from nextedge.errors import GateError

_COSTS = ("seconds", "cpu_seconds", "peak_memory_mib", "output_mib")  # of build's ResourceUsage

app = typer.Typer(help="List, compare, promote and roll back releases.")


@app.callback(invoke_without_command=True)
def releases(
    context: typer.Context, config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """List, compare, promote and roll back releases."""
    if context.invoked_subcommand is None:
        _list(config, as_json=as_json)


@app.command("list")
def list_releases(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the releases, oldest first; * marks the served one."""
    _list(config, as_json=as_json)


def _list(config: Path, *, as_json: bool) -> None:
    repository = open_releases(config)
    served = repository.current_id()
    found = repository.all()
    if as_json:
        render.print_json(
            [{"id": r.id, "served": r.id == served, **r.manifest["metrics"]} for r in found]
        )
        return
    rows = [
        (("* " if r.id == served else "  ") + r.id, r.manifest["created"], ", ".join(r.surfaces))
        for r in found
    ]
    render.table("releases (* = served)", ("release", "created", "surfaces"), rows)


@app.command()
def show(release: ReleaseId, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Print the manifest of a release as JSON."""
    # A copy, as its list of files is replaced.
    manifest = dict(open_releases(config).get(release).manifest)
    manifest["files"] = f"{len(manifest['files'])} files"
    render.print_json(manifest)


@app.command()
def costs(release: ReleaseId, config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Print the costs of each build step of a release.

    A step's costs are its seconds, CPU seconds, peak memory and output.
    """
    steps = open_releases(config).get(release).costs()
    if as_json:
        render.print_json(steps)
        return
    rows = [
        (
            " ".join(str(step[part]) for part in ("step", "surface") if part in step),
            *(f"{step[part]:,.1f}" if part in step else "-" for part in _COSTS),
            "reused" if step["reused"] else "",
        )
        for step in steps
    ]
    header = ("step", "seconds", "CPU s", "peak MiB", "output MiB", "")
    render.table(f"costs of release {release}", header, rows)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="id of a release")],
    second: Annotated[str, typer.Argument(help="id of another release")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Print the metrics of two releases side by side."""
    repository = open_releases(config)
    metrics = [repository.get(name).manifest["metrics"] for name in (first, second)]
    rows = []
    for surface in sorted({*metrics[0], *metrics[1]}):
        left, right = (m.get(surface, {}) for m in metrics)
        rows += [
            (f"{surface} {key}", str(left.get(key, "-")), str(right.get(key, "-")))
            # Unlike a set, it has the order of the manifests.
            for key in dict.fromkeys((*left, *right))
        ]
    render.table("releases", ("metric", first, second), rows)


@app.command()
def gate(
    release: ReleaseId,
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="share of the served release's NDCG it may lose")
    ] = 0.1,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Compare a release with the served one; exit 1 if it is worse."""
    from nextedge.releases.gate import faults

    repository = open_releases(config)
    served_id = repository.current_id()
    served = None if served_id is None else repository.get(served_id)
    found = faults(repository.get(release), served, max_drop)
    if as_json:
        render.print_json({"release": release, "served": served_id, "faults": found})
    if found:
        raise GateError("\n".join(found))
    if not as_json:
        render.say(f"release {release} may be served in the place of {served_id or 'nothing'}")


@app.command()
def promote(release: ReleaseId, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Serve a release from now on."""
    open_releases(config).promote(release)
    render.say(f"serving {release}")


@app.command()
def rollback(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Serve the release that was served before."""
    render.say(f"serving {open_releases(config).rollback()}")


@app.command()
def trial(
    release: Annotated[
        str | None, typer.Argument(help="id of the release to try; without one the trial ends")
    ] = None,
    share: Annotated[float, typer.Option(help="share of the users, between 0 and 1")] = 0.1,
    name: Annotated[
        str | None, typer.Option(help="name of the trial; default: the release's id")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Serve a release to a share of the users, or end that trial."""
    repository = open_releases(config)
    if release is None:
        repository.end_trial()
        render.say(f"no trial; serving {repository.current_id()}")
        return
    started = repository.start_trial(release, share, name)
    render.say(f"trial {started.name}: {release} for {share:.0%} of the users")


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="number of newest releases to keep")] = 3,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Delete old releases, but never the served one."""
    deleted = open_releases(config).prune(keep)
    render.say("deleted " + (", ".join(deleted) or "nothing"))
