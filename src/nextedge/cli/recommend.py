"""``nextedge recommend``: for some users, for all users, or why not a candidate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextedge.cli import render
from nextedge.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigFile,
    EngineName,
    Partition,
    Where,
    open_recommender,
    parse_part,
)
from nextedge.errors import InputError

if TYPE_CHECKING:
    from rich.text import Text

    from nextedge.recommender import Recommender
    from nextedge.serving.messages import RecommendationRequest, RecommendationResponse
    from nextedge.serving.why_not import WhyNot


def recommend(
    surface: Annotated[str | None, typer.Option(help="people, items, or one of your own")] = None,
    user: Annotated[list[str] | None, typer.Option(help="id of a user; repeatable")] = None,
    every_user: Annotated[bool, typer.Option("--all", help="every user of the release")] = False,
    k: Annotated[int | None, typer.Option("-k", help="results of each user, 1 to 500")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="add the features that moved each score")
    ] = False,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="recommend existing edges too")
    ] = False,
    why_not: Annotated[
        str | None, typer.Option("--why-not", help="say why this candidate is not recommended")
    ] = None,
    partition: Partition = None,
    engine: EngineName = "local",
    to: Annotated[Path | None, typer.Option("--out", help="Parquet file to write")] = None,
    where: Where = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Recommend for some users or for all users.

    With --why-not, say which stage drops a candidate from a user's recommendations.
    """
    from nextedge.serving.messages import RecommendationRequest

    _check_options(user, every_user, to, partition, engine)
    recommender = open_recommender(where or config)
    name = recommender.surface_name(surface)
    if why_not is not None:
        if not user:
            raise InputError("--why-not CANDIDATE needs --user ID")
        explanations = [recommender.why_not(user_id, why_not, name, k) for user_id in user]
        if as_json:
            render.print_json([explanation.to_json() for explanation in explanations])
        else:
            for explanation in explanations:
                _print_why_not(explanation)
        return
    # Without --allow-seen the settings of the surface decide.
    request = RecommendationRequest(name, k, explain=explain, allow_seen=allow_seen or None)
    if every_user:
        assert to is not None  # checked above
        rows = _write_all(recommender, request, to, partition, engine)
        if as_json:
            render.print_json({"rows": rows, "out": str(to)})
        else:
            render.say(f"{rows:,} recommendations in {to}")
        return
    # Strict: a misspelt id would otherwise get what an unknown user gets.
    answers = recommender.recommend_many(list(user or ()), request, strict=True)
    if to is not None:
        from nextedge.cli.export import write_answers

        write_answers([answers], request, recommender, to)
    if as_json:
        render.print_json([answer_json(answer) for answer in answers])
    else:
        for answer in answers:
            print_answer(answer, explain=explain)


def _check_options(
    user: list[str] | None, every_user: bool, to: Path | None, partition: str | None, engine: str
) -> None:
    """Refuse options that contradict each other."""
    from nextedge.storage.opening import is_misspelt

    if bool(user) == every_user:
        raise InputError("give either --user ID (repeatable) or --all")
    if every_user and to is None:
        raise InputError("--all needs --out FILE.parquet")
    if to is not None and is_misspelt(str(to)):  # a Path keeps only one of a URL's two slashes
        raise InputError(
            f"--out {to}: expected a file on a disk of this machine; copy it afterwards"
        )
    if partition is not None and (not every_user or engine != "local"):
        raise InputError("--partition goes with --all, on the local engine")
    if engine != "local" and not every_user:
        raise InputError("--engine goes with --all")


def _write_all(
    recommender: Recommender,
    request: RecommendationRequest,
    path: Path,
    partition: str | None,
    engine: str,
) -> int:
    """Write the recommendations of every user; returns the rows."""
    from nextedge.cli.batch import recommend_all
    from nextedge.cli.export import write_all
    from nextedge.engines.open import open_engine

    with render.progress_bar() as progress:
        if engine == "local":
            return write_all(recommender, request, path, progress, parse_part(partition))
        with open_engine(engine, recommender.config.state_path) as opened:
            return recommend_all(opened, recommender, request, path, progress)


def answer_json(answer: RecommendationResponse) -> dict[str, Any]:
    """The recommendations of one user as JSON values."""
    key = "item_id" if answer.kind == "items" else "candidate_id"
    recommendations = []
    for item in answer.recommendations:
        value = {
            key: item.id,
            "score": item.score,
            "rank": item.rank,
            "reason": asdict(item.reason),
            "sources": list(item.sources),
            "display": item.display,
        }
        if item.contributions:
            value["contributions"] = item.contributions
        recommendations.append(value)
    return {
        "user_id": answer.user_id,
        "surface": answer.surface,
        "release": answer.release,
        "known_user": answer.known_user,
        "degraded": list(answer.degraded),
        "latency_ms": round(answer.latency_ms, 3),
        "recommendations": recommendations,
    }


def print_answer(answer: RecommendationResponse, *, explain: bool) -> None:
    """Print the recommendations of one user as a table."""
    from rich.text import Text

    rows: list[list[str | Text]] = []
    for item in answer.recommendations:
        name = item.display if item.display != str(item.id) else ""  # an id is printed once
        sources = " ".join(item.sources[:2])
        rows.append(
            [str(item.rank), str(item.id), name, f"{item.score:.4f}", item.reason.text, sources]
        )
        if explain and item.contributions:
            largest = list(item.contributions.items())[:4]
            moved = ", ".join(f"{feature} {value:+.2f}" for feature, value in largest)
            rows.append(["", "", "", "", Text(moved, style="dim"), ""])
    known = "" if answer.known_user else "  (unknown user: popular)"
    render.table(
        f"{answer.surface} for {answer.user_id}{known}",
        ("#", "id", "", "score", "why", "sources"),
        rows,
        left=(1, 2, 4, 5),
        fold=True,
    )
    render.say("")


def _print_why_not(explanation: WhyNot) -> None:
    """Print the stage that dropped a candidate, and its rank in each source."""
    render.say(
        f"{explanation.surface}: {explanation.candidate_id} for {explanation.user_id}: "
        f"{render.bold(explanation.stage)}: {explanation.explanation}"
    )
    if explanation.sources:
        ranks = [
            (name, "not found" if rank is None else f"{rank:,}")
            for name, rank in explanation.sources.items()
        ]
        render.table("", ("source", "rank there"), ranks)
