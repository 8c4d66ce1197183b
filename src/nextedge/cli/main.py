"""The ``nextedge`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextedge.cli import render
from nextedge.cli.contacts import contacts
from nextedge.cli.events import events_app
from nextedge.cli.plan import plan
from nextedge.cli.record import record, replay
from nextedge.errors import DataError, GateError, InputError, NextEdgeError

if TYPE_CHECKING:
    from nextedge.api.keys import ApiKeys
    from nextedge.data.partition import Part
    from nextedge.recommender import Recommender

app = typer.Typer(
    help="NextEdge recommends the next edge in a graph: people to people, and people to items.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COSTS = ("seconds", "cpu_seconds", "peak_memory_mib", "output_mib")  # of Usage
releases_app = typer.Typer(help="List, show, compare, promote and roll back releases.")
app.add_typer(releases_app, name="releases")
keys_app = typer.Typer(
    help="Make, list and revoke API keys of 'nextedge serve'.", no_args_is_help=True
)
app.add_typer(keys_app, name="keys")
app.command()(contacts)
app.command()(plan)
app.command()(record)
app.command()(replay)
app.add_typer(events_app, name="events")

Where = Annotated[Path | None, typer.Argument(help="a folder of tables, or a nextedge.toml")]
ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="nextedge.toml, or a folder")]
Partition = Annotated[
    str | None, typer.Option(help="only those of a part of the users, as 0/4, 1/4, 2/4 and 3/4")
]
EngineName = Annotated[str, typer.Option("--engine", help="where it runs: local or spark")]
Port = Annotated[int, typer.Option(min=0, max=65535)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines")]
_DEFAULT = Path("nextedge.toml")


def _recommender(where: Path | None, config: Path):  # type: ignore[no-untyped-def]
    from nextedge.recommender import Recommender

    return Recommender(where or config)


def _part(given: str | None) -> Part | None:
    from nextedge.data.partition import Part

    return None if given is None else Part.parse(given, "--partition")


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="where to make the tenant")] = Path("demo"),
    users: Annotated[int, typer.Option(min=50, help="number of users")] = 2000,
    seed: Annotated[int, typer.Option(help="same seed, same tenant")] = 0,
    serve: Annotated[bool, typer.Option("--serve", help="serve it afterwards")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a realistic synthetic tenant, build it, and show recommendations."""
    from nextedge.data.synthetic import SyntheticConfig, generate_tenant
    from nextedge.recommender import Recommender

    with render.progress_bar() as progress:
        generate_tenant(directory, SyntheticConfig(users=users, seed=seed), progress)
        settings = directory / "nextedge.toml"
        if not settings.exists():
            settings.write_text(_DEMO_SETTINGS)
        recommender = Recommender(directory)
        release = recommender.build(progress=progress)
    shown = _demo_users(recommender)
    answers = [
        recommender.recommend(u, surface, 5, explain=True)
        for u in shown
        for surface in recommender.release.surfaces
    ]
    if as_json:
        render.print_json({"release": release, "answers": [render.answer_json(a) for a in answers]})
    else:
        for answer in answers:
            render.print_answer(answer, explain=False)
        _print_evaluation(recommender.evaluation(), brief=True)
        render.out.print(
            f"release {release} in {directory}/state. Next: nextedge recommend -c {directory} --surface people --user {shown[0]} --explain",
            soft_wrap=True,
        )
    if serve:
        _serve([directory], "127.0.0.1", 8000, 1)


_DEMO_SETTINGS = """\
# Made by `nextedge demo`: the tables are the files of this folder. What is left out has its
# default; `nextedge init` writes a file that names every setting.

[surfaces.people.ranker]
max_rows = 60000      # for a quick build; the default is 200000

[surfaces.items.ranker]
max_rows = 60000
"""


def _demo_users(recommender: Any) -> list[Any]:
    """A well-connected user, a typical one, and one without edges."""
    import numpy as np

    degree = recommender.release.snapshot.connections.degree
    order = np.argsort(degree, kind="stable")
    places = [int(order[int(len(order) * 0.95)]), int(order[len(order) // 2]), int(order[0])]
    return list(recommender.release.entities.users.identifiers(places).to_pylist())


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="folder of your tables")]) -> None:
    """Write a commented nextedge.toml."""
    from nextedge.cli.template import write_template

    render.out.print(f"wrote {write_template(directory)}")


@app.command()
def check(where: Where = None, config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """Validate configuration and data; say what would be dropped, and why."""
    report = _recommender(where, config).check()
    if as_json:
        render.print_json(report.to_json())
    else:
        render.print_check(report)
    if report.fatal:
        raise DataError("\n".join(report.fatal))


@app.command()
def build(
    where: Where = None,
    config: ConfigFile = _DEFAULT,
    surface: Annotated[list[str] | None, typer.Option(help="only this surface; repeatable")] = None,
    engine: EngineName = "local",
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="publish without serving")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="run every step anew")] = False,
    until: Annotated[
        str | None, typer.Option(metavar="STEP", help="run no further than this step")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="calls of the same name go on with the inputs of the first")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="for another build to end")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run the offline line and publish a release; resumes where a build was stopped.

    Steps: tables, entities, snapshot, then of each surface embed, sources, index, rank, evaluate.
    """
    from nextedge.build.run import BuildOptions

    recommender = _recommender(where, config)
    options = BuildOptions(tuple(surface or ()), fresh, not no_promote, until, run, wait)
    with render.progress_bar() as progress:
        release = recommender.run_steps(options, engine, progress)
    if release is None:
        if as_json:
            render.print_json({"until": until, "release": None})
        return
    built = recommender.releases.get(release)
    if as_json:
        render.print_json(
            {"release": release, "path": str(built.path), "metrics": built.manifest["metrics"]}
        )
        return
    render.out.print(f"release {release}{'' if not no_promote else ' (not promoted)'}")
    for name, metrics in built.manifest["metrics"].items():
        figures = "  ".join(
            f"{key} {value:.4f}" for key, value in metrics.items() if isinstance(value, float)
        )
        render.out.print(
            f"  {name}: ranker {metrics['ranker']}, {metrics['split']} split  {figures}",
            soft_wrap=True,
        )


@app.command()
def recommend(
    surface: Annotated[str | None, typer.Option(help="people, items, or your own")] = None,
    user: Annotated[list[str] | None, typer.Option(help="for whom; repeatable")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="for every user of the release")] = False,
    k: Annotated[int | None, typer.Option("-k", help="how many, 1 to 500")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="what moved each score")] = False,
    allow_seen: Annotated[bool, typer.Option("--allow-seen", help="also existing edges")] = False,
    why_not: Annotated[
        str | None, typer.Option("--why-not", help="what keeps this candidate from the user's list")
    ] = None,
    partition: Partition = None,
    engine: EngineName = "local",
    to: Annotated[Path | None, typer.Option("--out", help="write Parquet")] = None,
    where: Where = None,
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Recommend, for some users or for all; or say why a candidate is not recommended."""
    from nextedge.cli.batch import recommend_all
    from nextedge.cli.export import write_all
    from nextedge.engines.open import open_engine
    from nextedge.serving.messages import RecommendationRequest
    from nextedge.storage.opening import is_misspelt

    recommender = _recommender(where, config)
    if bool(user) == everyone:
        raise InputError("give either --user ID (repeatable) or --all")
    if everyone and to is None:
        raise InputError("--all needs --out FILE.parquet")
    if to is not None and is_misspelt(str(to)):  # a Path has but one of a URL's slashes
        raise InputError(
            f"--out {to}: expected a file on a disk of this machine; copy it afterwards"
        )
    if partition is not None and (not everyone or engine != "local"):
        raise InputError("--partition goes with --all, on the local engine")
    if engine != "local" and not everyone:
        raise InputError("--engine goes with --all")
    name = recommender.surface_name(surface)
    if why_not is not None:
        if everyone or not user:
            raise InputError("--why-not CANDIDATE needs --user ID")
        found = [recommender.why_not(one, why_not, name, k) for one in user]
        if as_json:
            render.print_json([one.to_json() for one in found])
        else:
            for one in found:
                render.print_why_not(one)
        return
    question = RecommendationRequest(name, k, explain=explain, allow_seen=allow_seen or None)
    if everyone:
        with render.progress_bar() as progress:
            if engine == "local":
                rows = write_all(recommender, question, to, progress, _part(partition))  # type: ignore[arg-type]
            else:
                with open_engine(engine, recommender.config.state_path) as opened:
                    rows = recommend_all(opened, recommender, question, to, progress)  # type: ignore[arg-type]
        if as_json:
            render.print_json({"rows": rows, "out": str(to)})
        else:
            render.out.print(f"{rows:,} recommendations in {to}")
        return
    answers = recommender.recommend_many(list(user or ()), question, strict=True)
    if to is not None:
        from nextedge.cli.export import write_answers

        write_answers([answers], question, recommender, to)
    if as_json:
        render.print_json([render.answer_json(answer) for answer in answers])
    else:
        for answer in answers:
            render.print_answer(answer, explain=explain)


@app.command()
def evaluate(
    release: Annotated[str | None, typer.Option(help="default: the served one")] = None,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity", help="compare features of single requests and of logged ones with the batch"
        ),
    ] = False,
    queries: Annotated[int, typer.Option(min=1, help="for --parity: users compared")] = 200,
    where: Where = None,
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Metrics of every source, baseline and the full line, with intervals."""
    if parity:
        _parity(_recommender(where, config), queries, as_json=as_json)
        return
    reports = _recommender(where, config).evaluation(release)
    if as_json:
        render.print_json(reports)
    else:
        _print_evaluation(reports, brief=False)


def _parity(recommender: Recommender, queries: int, *, as_json: bool) -> None:
    """Print what differs between one request and many, and from what was logged; exit 1 if any."""
    found, replayed = recommender.parity(queries), recommender.replay()
    if as_json:
        render.print_json(
            {
                each.surface: {**each.to_json(), "logged": logged.to_json()}
                for each, logged in zip(found, replayed, strict=True)
            }
        )
    else:
        for each, logged in zip(found, replayed, strict=True):
            render.print_parity(each)
            render.print_replay(logged)
    if not all(each.equal for each in (*found, *replayed)):
        raise typer.Exit(1)


def _print_evaluation(reports: dict[str, Any], *, brief: bool) -> None:
    from nextedge.evaluation import tables
    from nextedge.evaluation.report import EvaluationReport

    for plain in reports.values():
        report = EvaluationReport.from_json(plain)
        if brief or not report.systems:
            render.print_rows(tables.report_rows(report, render.out.width))
            continue
        render.print_rows(tables.system_rows(report))
        render.print_rows(tables.comparison_rows(report))
        if report.shown is not None:
            render.print_rows(tables.shown_rows(report))
        render.print_rows(tables.candidate_recall_rows(report))
        render.print_rows(tables.slice_rows(report))


@keys_app.command("create")
def create_key(
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; may be given again")
    ] = None,
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown once: only its hash is kept."""
    key, token = _keys(config).create(tuple(scope or ("read",)))
    if as_json:
        render.print_json({"id": key.id, "key": token, "scopes": key.scopes})
        return
    render.out.print(f"{token}  (id {key.id}, {', '.join(key.scopes)}); it is not shown again")


@keys_app.command("list")
def list_keys(config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """The API keys, oldest first; never the keys themselves."""
    keys = _keys(config).all()
    if as_json:
        render.print_json([{"id": k.id, "scopes": k.scopes, "created": k.created} for k in keys])
        return
    rows = [(key.id, ", ".join(key.scopes), key.created) for key in keys]
    render.table("API keys", ("id", "scopes", "created"), rows)


@keys_app.command("revoke")
def revoke_key(key_id: str, config: ConfigFile = _DEFAULT) -> None:
    """Refuse a key from now on, in every worker."""
    _keys(config).revoke(key_id)
    render.out.print(f"key {key_id} is revoked")


def _keys(config: Path) -> ApiKeys:
    from nextedge.api.keys import ApiKeys

    return ApiKeys(_recommender(None, config).config.state_path)


@releases_app.callback(invoke_without_command=True)
def releases(
    context: typer.Context, config: ConfigFile = _DEFAULT, as_json: AsJson = False
) -> None:
    """The releases, oldest first; the served one is marked."""
    context.obj = (config, as_json)
    if context.invoked_subcommand is None:
        _list(config, as_json)


@releases_app.command("list")
def list_releases(config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """The releases, oldest first; the served one is marked."""
    _list(config, as_json)


def _list(config: Path, as_json: bool) -> None:
    repository = _recommender(None, config).releases
    current = repository.current_id()
    found = repository.all()
    if as_json:
        render.print_json(
            [{"id": r.id, "served": r.id == current, **r.manifest["metrics"]} for r in found]
        )
        return
    rows = [
        (("* " if r.id == current else "  ") + r.id, r.manifest["created"], ", ".join(r.surfaces))
        for r in found
    ]
    render.table("releases (* = served)", ("release", "created", "surfaces"), rows)


@releases_app.command()
def show(release: str, config: ConfigFile = _DEFAULT) -> None:
    """The manifest of a release."""
    manifest = dict(_recommender(None, config).releases.get(release).manifest)
    manifest["files"] = f"{len(manifest['files'])} files"
    render.print_json(manifest)


@releases_app.command()
def costs(release: str, config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """What each step took that made a release: seconds, CPU, peak memory, and what it wrote."""
    found = _recommender(None, config).releases.get(release).costs()
    if as_json:
        render.print_json(found)
        return
    rows = [
        (
            " ".join(str(each[part]) for part in ("step", "surface") if part in each),
            *(f"{each[part]:,.1f}" if part in each else "-" for part in _COSTS),
            "kept" if each["reused"] else "",
        )
        for each in found
    ]
    heads = ("step", "seconds", "CPU s", "peak MiB", "output MiB", "")
    render.table(f"what release {release} cost", heads, rows)


@releases_app.command()
def diff(first: str, second: str, config: ConfigFile = _DEFAULT) -> None:
    """Metrics of two releases side by side."""
    repository = _recommender(None, config).releases
    metrics = [repository.get(name).manifest["metrics"] for name in (first, second)]
    rows = []
    for surface in sorted({*metrics[0], *metrics[1]}):
        left, right = (m.get(surface, {}) for m in metrics)
        rows += [
            (f"{surface} {key}", str(left.get(key, "-")), str(right.get(key, "-")))
            for key in dict.fromkeys((*left, *right))
        ]
    render.table("releases", ("metric", first, second), rows)


@releases_app.command()
def gate(
    release: str,
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="share of the served one's NDCG that may be lost")
    ] = 0.1,
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Whether a release may be served in the place of the served one; exit 1 if not."""
    from nextedge.releases.gate import faults

    repository = _recommender(None, config).releases
    served = repository.current_id()
    before = None if served is None else repository.get(served)
    found = faults(repository.get(release), before, max_drop)
    if as_json:
        render.print_json({"release": release, "served": served, "faults": found})
    if found:
        raise GateError("\n".join(found))
    if not as_json:
        render.out.print(f"release {release} may be served in the place of {served or 'nothing'}")


@releases_app.command()
def promote(release: str, config: ConfigFile = _DEFAULT) -> None:
    """Serve a release from now on."""
    _recommender(None, config).releases.promote(release)
    render.out.print(f"serving {release}")


@releases_app.command()
def rollback(config: ConfigFile = _DEFAULT) -> None:
    """Serve what was served before."""
    render.out.print(f"serving {_recommender(None, config).releases.rollback()}")


@releases_app.command()
def trial(
    release: Annotated[
        str | None, typer.Argument(help="to be tried; left out, the trial ends")
    ] = None,
    share: Annotated[float, typer.Option(help="of the users, between 0 and 1")] = 0.1,
    name: Annotated[str | None, typer.Option(help="of the trial, default the release")] = None,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Let a release answer a share of the users beside the served one, or end that."""
    repository = _recommender(None, config).releases
    if release is None:
        repository.end_trial()
        render.out.print(f"no trial; serving {repository.current_id()}")
        return
    began = repository.start_trial(release, share, name)
    render.out.print(f"trial {began.name}: {release} for {share:.0%} of the users")


@releases_app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="newest releases to keep")] = 3,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Delete old releases; never the served one."""
    deleted = _recommender(None, config).releases.prune(keep)
    render.out.print("deleted " + (", ".join(deleted) or "nothing"))


@app.command()
def publish(
    release: Annotated[str | None, typer.Option(help="default: the served one")] = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="at most, those first who were active last")
    ] = None,
    partition: Partition = None,
    engine: EngineName = "local",
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Find users' candidates ahead and keep them in the store; goes on where it was stopped."""
    from nextedge.cli.batch import publish_all
    from nextedge.engines.open import open_engine

    recommender, part = _recommender(None, config), _part(partition)
    if part is not None and engine != "local":
        raise InputError("--partition goes with the local engine; Spark makes parts of its own")
    with render.progress_bar() as progress:
        if engine == "local":
            kept = recommender.publish(release, users=users, part=part, progress=progress)
        else:
            with open_engine(engine, recommender.config.state_path) as opened:
                kept = publish_all(opened, recommender, release, users, progress)
    if as_json:
        render.print_json({"lists": kept})
        return
    render.out.print(f"{kept:,} lists of candidates are kept")


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="id as in your tables")],
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Erase what is kept of a person; no later build reads them. Can be run again."""
    erased = _recommender(None, config).forget(user)
    if as_json:
        render.print_json(erased.to_json())
        return
    render.out.print(
        f"forgotten: {erased.releases} releases written anew, {erased.events} events and "
        f"{erased.requests} logged requests erased"
    )


@app.command()
def serve(
    where: Where = None,
    host: str = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="answer on after SIGTERM, while /health/ready says 503")
    ] = 1.0,
    config: Annotated[
        list[Path] | None,
        typer.Option("-c", "--config", help="nextedge.toml, or a folder; repeat for more tenants"),
    ] = None,
    tenants: Annotated[
        Path | None, typer.Option(help="a folder of tenants' folders, all of them served")
    ] = None,
) -> None:
    """Serve the promoted release over HTTP, of one tenant or several; OpenAPI at /docs."""
    from nextedge.api.server import tenants_below

    named = [*([where] if where else []), *(config or [])]
    if tenants is not None:
        if named:
            raise InputError("give either --tenants DIR, or each tenant by -c")
        named = tenants_below(tenants)
    _serve(named or [_DEFAULT], host, port, workers, drain_seconds)


def _serve(
    locations: list[Path], host: str, port: int, workers: int, drain_seconds: float = 0.0
) -> None:
    from nextedge.api.server import run_server

    run_server(locations, host, port, workers, drain_seconds)


@app.command("serve-shard")
def serve_shard(
    shard: Annotated[str, typer.Argument(help="which part of every index, as 0/8 to 7/8")],
    host: str = "127.0.0.1",
    port: Port = 8100,
    socket: Annotated[
        Path | None, typer.Option(help="listen on this Unix socket, not on host and port")
    ] = None,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Hold a part of the indexes in shards, and answer searches of 'nextedge serve' in it."""
    from nextedge.config import load_config
    from nextedge.data.partition import Part
    from nextedge.serving.shards.server import run_shard_server

    run_shard_server(load_config(config), Part.parse(shard, "SHARD"), host, port, socket)


@app.command("import")
def import_(
    layout: Annotated[str, typer.Argument(help="movielens or edges")],
    source: Annotated[Path, typer.Argument(help="the public files")],
    directory: Annotated[Path, typer.Argument(help="where our tables go")],
    as_json: AsJson = False,
) -> None:
    """Turn a public format into our tables."""
    from nextedge.data.importers.importer import importers
    from nextedge.errors import nearest

    known = importers()
    if layout not in known:
        raise InputError(f"no format {layout!r}; {nearest(layout, known)}")
    report = known[layout].run(source, directory)
    if as_json:
        render.print_json({"tables": report.tables, "notes": list(report.notes)})
        return
    for name, rows in report.tables.items():
        render.out.print(f"{directory / name}.parquet: {rows:,} rows")
    for note in report.notes:
        render.out.print(f"  {note}", markup=False)


def main() -> None:
    """Run the command line; known errors are said in words, with their exit code."""
    try:
        app(standalone_mode=True)
    except NextEdgeError as error:
        render.err.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        render.err.print("stopped; run the same command again to resume")
        sys.exit(1)
