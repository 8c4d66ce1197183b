"""Logged impressions: AUC, log loss and what a policy would have earned.

    python bench/ranking/impressions.py [--data DIR] [--out FILE.json]

``open_bandit_small``: a campaign's log of one policy is the tenant (users are what is known of
them, clicks are its interactions), the log of the uniformly random policy tells what the line,
popularity and chance would have earned. ``speed_dating``: accepted meetings are directed
connections, decisions are impressions; the last waves are the evaluation window.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from nextedge import Recommender
from nextedge.evaluation.impressions import Choice, best_of_each, measure_impressions
from nextedge.evaluation.off_policy import off_policy_value
from nextedge.serving.messages import RecommendationRequest

HOME = Path(__file__).parents[2]


def open_bandit(folder: Path, campaign: str) -> dict[str, object]:
    """Learn from the deployed policy's log, read values off the random one's."""
    logs = {
        p: pl.read_parquet(folder / f"{p}_{campaign}/impressions.parquet")
        for p in ("bts", "random")
    }
    features = [f"user_feature_{n}" for n in range(4)]
    logs = {p: _with_user(rows, features) for p, rows in logs.items()}
    users = pl.concat([rows.select("user_id", *features) for rows in logs.values()]).unique(
        "user_id"
    )
    items = pl.read_parquet(folder / f"bts_{campaign}/items.parquet").with_columns(
        pl.col("item_id").cast(pl.Int64)
    )
    given = logs["bts"]
    clicks = given.filter(pl.col("click") == 1)
    where = Path(tempfile.mkdtemp(prefix="nextedge-impressions-"))
    users.write_parquet(where / "users.parquet")
    items.write_parquet(where / "items.parquet")
    clicks.select("user_id", "item_id", "timestamp").write_parquet(where / "interactions.parquet")
    given.select(
        "user_id",
        "item_id",
        "timestamp",
        "position",
        pl.col("propensity_score").alias("propensity"),
        pl.when(pl.col("click") == 1).then(pl.lit("click")).alias("action"),
    ).write_parquet(where / "impressions.parquet")
    (where / "nextedge.toml").write_text("[surfaces.items.ranker]\nattribution_days = 0.1\n")
    recommender = Recommender(where)
    recommender.build()
    return _told_by_random(recommender, logs["random"], clicks)


def _with_user(rows: pl.DataFrame, features: list[str]) -> pl.DataFrame:
    user = pl.concat_str([pl.col(name) for name in features], separator="|")
    return rows.with_columns(user.alias("user_id"), pl.col("item_id").cast(pl.Int64))


def _told_by_random(
    recommender: Recommender, log: pl.DataFrame, clicks: pl.DataFrame
) -> dict[str, object]:
    """Scores of every item for every user of the random log, and what they are worth there."""
    items = recommender.release.entities.items.values.to_pylist()
    users = log["user_id"].unique().sort().to_list()
    line = recommender.release.surface("items").line
    count = dict(clicks.group_by("item_id").len().iter_rows())
    scores: dict[tuple[str, int], float] = {}
    for start in range(0, len(users), 200):
        question = RecommendationRequest("items", len(items), allow_seen=True)
        for answer in recommender.recommend_many(users[start : start + 200], question):
            for each in answer.recommendations:
                scores[answer.user_id, each.id] = each.score - 1e-9 * each.rank
    taken = log["click"].to_numpy() == 1
    pairs = list(zip(log["user_id"].to_list(), log["item_id"].to_list(), strict=True))
    ranked = np.array([scores.get(pair, 0.0) for pair in pairs])
    popular = np.array([count.get(item, 0) for _, item in pairs], float)
    places = int(log["position"].n_unique())
    wanted = sorted(set(items) | {item for _, item in pairs})
    grid = {
        "full_line": np.array([[scores.get((u, i), 0.0) for i in wanted] for u in users]),
        "popularity": np.tile([count.get(i, 0) for i in wanted], (len(users), 1)).astype(float),
    }
    request = np.repeat(np.arange(len(users)), len(wanted))
    of_user, of_item = {u: n for n, u in enumerate(users)}, {i: n for n, i in enumerate(wanted)}
    at = np.array([of_user[u] * len(wanted) + of_item[i] for u, i in pairs])
    chance = {name: best_of_each(g.ravel(), request, places)[at] for name, g in grid.items()}
    chance["random"] = np.full(len(pairs), 1.0 / len(wanted))
    affinity = log.select(c for c in log.columns if "affinity" in c).to_numpy()
    attributes = np.concatenate(
        [
            log.select("user_feature_0", "user_feature_1", "user_feature_2", "user_feature_3")
            .to_dummies()
            .to_numpy(),
            np.eye(len(wanted))[[of_item[i] for _, i in pairs]],
            affinity,
        ],
        axis=1,
    )
    clipped = np.clip(ranked, 1e-7, 1 - 1e-7)
    found = measure_impressions(
        taken,
        np.arange(len(taken)),
        {
            "full_line": (np.log(clipped) - np.log1p(-clipped))[:, None],
            "popularity": np.log1p(popular)[:, None],
            "logistic_regression": attributes,
            "random": np.zeros((len(taken), 1)),
        },
        Choice(log["propensity_score"].to_numpy(), chance),
    )
    return {"ranker": line.ranker.name if line.ranker else "rough_score", **_plain(found)}


def bandit_truth(folder: Path, campaign: str) -> dict[str, object]:
    """What the deployed policy earned, against what the random log says of its choices."""
    bts = pl.read_parquet(folder / f"bts_{campaign}/impressions.parquet")
    log = pl.read_parquet(folder / f"random_{campaign}/impressions.parquet")
    by_place = {
        (item, place): share
        for item, place, share in bts.group_by("item_id", "position")
        .len()
        .with_columns(pl.col("len") / pl.col("len").sum().over("position"))
        .iter_rows()
    }
    evaluated = [by_place.get(key, 0.0) for key in log.select("item_id", "position").iter_rows()]
    value = off_policy_value(log["click"].to_numpy(), log["propensity_score"].to_numpy(), evaluated)
    return {"earned": round(float(bts["click"].mean()), 5), "told": _interval(value.snips)}


def speed_dating(folder: Path) -> dict[str, object]:
    """Decisions as impressions; the evaluation of the build itself."""
    rows = pl.read_parquet(folder / "decisions.parquet").drop_nulls(["user_id", "target_id"])
    users = pl.read_parquet(folder / "users.parquet")
    day = pl.col("wave").cast(pl.Int64) * 30 * 86_400_000_000
    when = pl.datetime(2003, 1, 1, time_unit="us") + (
        day + pl.col("position").cast(pl.Int64).fill_null(0) * 60_000_000
    ).cast(pl.Duration("us"))
    rows = rows.with_columns(when.alias("timestamp"))
    where = Path(tempfile.mkdtemp(prefix="nextedge-impressions-"))
    users.drop("wave").write_parquet(where / "users.parquet")
    yes = rows.filter(pl.col("dec") == 1)
    yes.select(
        pl.col("user_id").alias("src"), pl.col("target_id").alias("dst"), "timestamp"
    ).write_parquet(where / "connections.parquet")
    rows.select(
        "user_id",
        pl.col("target_id").alias("candidate_id"),
        "timestamp",
        "position",
        pl.when(pl.col("dec") == 1).then(pl.lit("accept")).alias("action"),
    ).write_parquet(where / "impressions.parquet")
    (where / "nextedge.toml").write_text(
        "[data]\ndirected = true\n[surfaces.people.ranker]\nattribution_days = 0.00001\n"
    )
    recommender = Recommender(where)
    recommender.build()
    report = recommender.evaluation()["people"]["shown"]
    return {"build": report}


def _plain(found) -> dict[str, object]:  # type: ignore[no-untyped-def]
    if found is None:
        return {"rows": 0}
    return {
        "rows": found.rows,
        "taken": found.taken,
        "systems": {
            s.name: {
                "auc": _interval(s.auc),
                "log_loss": _interval(s.log_loss),
                "loss_saved": round(s.log_loss_saved, 5),
                **(
                    {}
                    if s.value is None
                    else {
                        "value_snips": _interval(s.value.snips),
                        "value_ips": _interval(s.value.ips),
                        "effective_rows": round(s.value.effective_rows, 1),
                    }
                ),
            }
            for s in found.systems
        },
    }


def _interval(value) -> list[float]:  # type: ignore[no-untyped-def]
    return [round(v, 5) for v in (value.mean, value.low, value.high)]


def main() -> None:
    """Measure both logs; print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HOME.parent / "shared" / "data")
    parser.add_argument(
        "--out",
        type=Path,
        default=HOME / "bench/ranking/results" / f"impressions-{time.strftime('%Y-%m-%d')}.json",
    )
    given = parser.parse_args()
    bandit = given.data / "open_bandit_small"
    rows: dict[str, object] = {}
    for campaign in ("men", "women"):
        rows[f"open_bandit/{campaign}"] = open_bandit(bandit, campaign)
        rows[f"open_bandit/{campaign}/truth"] = bandit_truth(bandit, campaign)
    rows["speed_dating"] = speed_dating(given.data / "speed_dating")
    given.out.write_text(json.dumps(rows, indent=1) + "\n")
    Console().print(rows)


if __name__ == "__main__":
    main()
