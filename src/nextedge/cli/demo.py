"""``nextedge demo``: a synthetic tenant, built, with its recommendations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import AsJson

if TYPE_CHECKING:
    from nextedge.recommender import Recommender
    from nextedge.types import Identifier

_SETTINGS = """\
# Made by `nextedge demo`: the tables are the files of this folder. What is left out has its
# default; `nextedge init` writes a file that names every setting.

[surfaces.people.ranker]
max_rows = 60000      # for a quick build; the default is 200000

[surfaces.items.ranker]
max_rows = 60000
"""


def demo(
    directory: Annotated[Path, typer.Argument(help="folder to write the tenant to")] = Path("demo"),
    users: Annotated[int, typer.Option(min=50, help="number of users")] = 2000,
    seed: Annotated[int, typer.Option(help="seed; the same seed gives the same tenant")] = 0,
    serve: Annotated[bool, typer.Option("--serve", help="serve the tenant afterwards")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a synthetic tenant, build it, and print recommendations."""
    from nextedge.cli.evaluate import print_evaluation
    from nextedge.cli.recommend import answer_json, print_answer
    from nextedge.data.synthetic import SyntheticConfig, generate_tenant
    from nextedge.recommender import Recommender

    with render.progress_bar() as progress:
        generate_tenant(directory, SyntheticConfig(users=users, seed=seed), progress)
        settings = directory / "nextedge.toml"
        if not settings.exists():  # settings of an earlier demo may be edited
            settings.write_text(_SETTINGS)
        recommender = Recommender(directory)
        release = recommender.build(progress=progress)
    user_ids = _sample_users(recommender)
    answers = [
        recommender.recommend(user_id, surface, 5, explain=True)
        for user_id in user_ids
        for surface in recommender.release.surfaces
    ]
    if as_json:
        render.print_json({"release": release, "answers": [answer_json(a) for a in answers]})
    else:
        for answer in answers:
            print_answer(answer, explain=False)  # the JSON alone has the contributions
        print_evaluation(recommender.evaluation(), brief=True)
        render.say(
            f"release {release} in {directory}/state. Next: nextedge recommend -c {directory} "
            f"--surface people --user {user_ids[0]} --explain"
        )
    if serve:
        from nextedge.api.server import run_server

        # No load balancer has to read from /health/ready that the server ends.
        run_server([directory], "127.0.0.1", 8000, 1, drain_seconds=0.0)


def _sample_users(recommender: Recommender) -> list[Identifier]:
    """Ids of a well-connected user, of a typical one, and of one with few edges."""
    import numpy as np

    degree = recommender.release.snapshot.connections.degree
    # Stable: the same seed prints the same users.
    order = np.argsort(degree, kind="stable")
    positions = [int(order[int(len(order) * 0.95)]), int(order[len(order) // 2]), int(order[0])]
    return list(recommender.release.entities.users.identifiers(positions).to_pylist())
