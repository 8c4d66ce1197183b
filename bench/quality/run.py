"""Quality on real data: build each set as a tenant would, rank the held-back edges, compare.

    python bench/quality/run.py [SET …] [--data DIR] [--out FILE.json]

Only train parts are built. Choose nothing by these figures: settings are chosen on windows cut
from train. Full ranking over everything the
query does not have. Heuristics and sources are ranked in the same run over the same queries.
The folder of data sets is --data, or NEXTEDGE_DATA, or ../shared/data beside the project.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from heuristics import tuned_heuristics
from rich.console import Console
from rich.table import Table

from nextedge import Recommender
from nextedge.build.evaluation.ranked_lists import HEURISTICS
from nextedge.build.time_split.window_pipeline import batches
from nextedge.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from nextedge.evaluation.ranking import RankMetrics, rank_metrics
from nextedge.graph.csr import Graph, build_graph, mirrored
from nextedge.retrieval.merge import merge_candidates
from nextedge.types import Candidates

Split = tuple[dict[str, pl.DataFrame], pl.DataFrame]
"""Tables to build from, and test pairs (left, right)."""
HOME = Path(__file__).parents[2]


def temporal(folder: Path) -> Split:
    """First edge of a pair counts; the last tenth of distinct pairs by time is the test."""
    edges = pl.read_parquet(folder / "edges.parquet").filter(pl.col("src") != pl.col("dst"))
    low, high = pl.min_horizontal("src", "dst"), pl.max_horizontal("src", "dst")
    edges = edges.with_columns(low.alias("a"), high.alias("b"))
    first = edges.group_by("a", "b").agg(pl.col("timestamp").min().alias("first"))
    cut = first["first"].quantile(0.9, "lower")
    train = edges.filter(pl.col("timestamp") <= cut).select("src", "dst", "timestamp")
    test = first.filter(pl.col("first") > cut).select("a", "b")
    return {"connections": train}, test


def foursquare(folder: Path) -> Split:
    """Friendships before, with check-ins; the test is what is new after."""
    before, after = (
        pl.read_parquet(folder / f"edges_{when}.parquet") for when in ("before", "after")
    )
    checkins = pl.read_parquet(folder / "checkins.parquet")
    return {"connections": before, "interactions": checkins}, after.join(
        before, on=["src", "dst"], how="anti"
    )


def random_edges(folder: Path) -> Split:
    """A seeded tenth of the edges is the test."""
    edges = pl.read_parquet(folder / "edges.parquet").select("src", "dst")
    held = pl.Series(np.random.default_rng(11).random(len(edges)) < 0.1)
    tables = {"connections": edges.filter(~held)}
    for name in ("users", "interactions", "items"):
        if (folder / f"{name}.parquet").exists():
            tables[name] = pl.read_parquet(folder / f"{name}.parquet")
    return tables, edges.filter(held)


def train_test(folder: Path) -> Split:
    """As given: train, and validation as the test where no test is given."""
    train = pl.read_parquet(folder / "train.parquet")
    found = [f for f in ("test", "valid_lightgcnpp", "valid") if (folder / f"{f}.parquet").exists()]
    test = pl.read_parquet(folder / f"{found[0]}.parquet").select("user_id", "item_id")
    train = train.join(test, on=["user_id", "item_id"], how="anti")
    tables = {"interactions": train.drop("rating", strict=False)}
    if (folder / "edges.parquet").exists():
        tables["connections"] = pl.read_parquet(folder / "edges.parquet")
    return tables, test


def train_valid(folder: Path) -> Split:
    """Train without its published validation part, which is the test here."""
    train = pl.read_parquet(folder / "train.parquet").select("user_id", "item_id")
    given = next(folder.glob("valid*.parquet"), None)
    if given is None:
        held = pl.Series(np.random.default_rng(11).random(len(train)) < 0.1)
        return {"interactions": train.filter(~held)}, train.filter(held)
    test = pl.read_parquet(given).select("user_id", "item_id")
    return {"interactions": train.join(test, on=["user_id", "item_id"], how="anti")}, test


def last_item(folder: Path) -> Split:
    """The last item given of each user is the test."""
    rows = pl.read_parquet(folder / "train.parquet")
    last = pl.col("position") == pl.col("position").max().over("user_id")
    test = rows.filter(last).select("user_id", "item_id")
    return {"interactions": rows.filter(~last).rename({"position": "timestamp"})}, test


def by_time(folder: Path) -> Split:
    """Global time split: the last tenth of interactions is the test."""
    rows = pl.read_parquet(folder / "interactions.parquet").sort("timestamp")
    size = int(len(rows) * 0.9)
    tables = {
        "interactions": rows[:size].drop("rating"),
        "items": pl.read_parquet(folder / "items.parquet"),
    }
    return tables, rows[size:].select("user_id", "item_id")


def random_interactions(folder: Path) -> Split:
    """A seeded tenth of the interactions is the test; friendships help."""
    rows = pl.read_parquet(folder / "interactions.parquet")
    held = pl.Series(np.random.default_rng(11).random(len(rows)) < 0.1)
    tables = {
        "interactions": rows.filter(~held).select("user_id", "item_id"),
        "connections": pl.read_parquet(folder / "edges.parquet"),
    }
    return tables, rows.filter(held).select("user_id", "item_id")


SETS: dict[str, tuple[str, Callable[[Path], Split]]] = {
    "foursquare/nyc": ("people", foursquare),
    "foursquare/jakarta": ("people", foursquare),
    "temporal_wiki_elec": ("people", temporal),
    "temporal_bitcoin_alpha": ("people", temporal),
    "temporal_collegemsg": ("people", temporal),
    "temporal_mathoverflow_a2q": ("people", temporal),
    "facebook100/caltech36": ("people", random_edges),
    "facebook100/reed98": ("people", random_edges),
    "facebook100/amherst41": ("people", random_edges),
    "musae_twitch/es": ("people", random_edges),
    "gemsec_deezer/ro": ("people", random_edges),
    "lightgcnpp_ml1m": ("items", train_test),
    "lightgcn_gowalla": ("items", train_valid),
    "diffnet_flickr": ("items", train_test),
    "amazon_beauty_seq": ("items", last_item),
    "movielens_100k": ("items", by_time),
    "lastfm_hetrec2011": ("items", random_interactions),
}


def ranked_systems(
    recommender: Recommender, surface: str, queries: np.ndarray
) -> Iterator[dict[str, Candidates]]:
    """Batch by batch the top 20 of every system, by name."""
    line = recommender.release.surface(surface).line
    names, known = line.features.names, line.scope.recommendable
    for requests in batches(queries, line.scope.snapshot.as_of, 20):
        found = line.search(requests)
        merged = merge_candidates(found, known, line.size, line.fusion)
        matrix = line.matrix(requests, merged)
        systems = {name: part.keep(known[part.candidate]) for name, part in found.items()}
        for name in HEURISTICS:
            if name in names:
                score = np.nan_to_num(matrix[:, names.index(name)])
                systems[name] = merged.with_columns(score=score).sorted_by("score")
        systems["full_line"] = line.rank(requests, merged)
        yield {name: Candidates(s.indptr, s.candidate).head(20) for name, s in systems.items()}


def measure(name: str, data: Path) -> dict[str, object]:
    """Build one set and measure every system on its test pairs."""
    surface, split = SETS[name]
    tables, test = split(data / name)
    folder = Path(tempfile.mkdtemp(prefix="nextedge-quality-"))
    try:
        for table, frame in tables.items():
            frame.write_parquet(folder / f"{table}.parquet")
        recommender, started = Recommender(folder), time.perf_counter()
        recommender.build([surface])
        build_s = time.perf_counter() - started
        about = {"set": name, "code": _commit(), "build_s": round(build_s, 1)}
        return {**about, **_measured(recommender, surface, test)}
    finally:
        shutil.rmtree(folder)


def _commit() -> str:
    """The short name of the commit that is measured, or ``unknown``."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=HOME,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def ranked(
    recommender: Recommender, surface: str, test: pl.DataFrame
) -> tuple[Graph, np.ndarray, np.ndarray, dict[str, RankMetrics]]:
    """The edges to find, their queries, their own edges' number, and every system's metrics of each."""
    scope = recommender.release.surface(surface).line.scope
    entities = recommender.release.entities
    left = entities.users.positions(test.to_series(0).to_list())
    right = (entities.users if surface == "people" else entities.items).positions(
        test.to_series(1).to_list()
    )
    if surface == "people":
        left, right = mirrored(left, right)
    usable = (left >= 0) & (right >= 0)
    left, right = left[usable], right[usable]
    usable = (
        scope.recommendable[right]
        & scope.snapshot.known_users[left]
        & ~scope.graph.contains(left, right)
    )
    positives = build_graph(left[usable], right[usable], len(scope.graph), scope.graph.targets)
    queries = np.flatnonzero(positives.degree).astype(np.int32)
    parts: dict[str, list[Candidates]] = {}
    for systems in ranked_systems(recommender, surface, queries):
        for name, top in systems.items():
            parts.setdefault(name, []).append(top)
    indptr, positive = positives.gather(queries)
    metrics = {}
    for name, tops in parts.items():
        ends = np.concatenate(([0], np.cumsum(np.concatenate([np.diff(t.indptr) for t in tops]))))
        metrics[name] = rank_metrics(
            ends, np.concatenate([t.candidate for t in tops]), indptr, positive
        )
    return positives, queries, scope.graph.degree[queries], metrics


def _measured(recommender: Recommender, surface: str, test: pl.DataFrame) -> dict[str, object]:
    positives, queries, _, metrics = ranked(recommender, surface, test)
    scope = recommender.release.surface(surface).line.scope
    tuned: dict[str, str] = {}
    if surface == "people":
        for name, found in tuned_heuristics(
            scope.graph, scope.recommendable, positives, queries
        ).items():
            tuned[name], metrics[f"tuned_{name}"] = found
    rivals = [name for name in metrics if name != "full_line"]
    best = max(rivals, key=lambda name: float(np.nanmean(metrics[name].ndcg)))
    ratio = paired_bootstrap(metrics["full_line"].ndcg, metrics[best].ndcg).ratio
    interval = bootstrap_interval(metrics["full_line"].ndcg)
    return {
        "queries": len(queries),
        "ndcg@20": round(interval.mean, 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "recall@20": round(float(np.nanmean(metrics["full_line"].recall)), 4),
        "best_single": best,
        "best_ndcg@20": round(float(np.nanmean(metrics[best].ndcg)), 4),
        "best_recall@20": round(float(np.nanmean(metrics[best].recall)), 4),
        "ratio": round(ratio.mean, 3),
        "ratio_interval": [round(ratio.low, 3), round(ratio.high, 3)],
        "best_tuned_heuristic": _best_tuned(metrics),
        "tuned": tuned,
        "ranker": recommender.release.release.manifest["metrics"][surface]["ranker"],
        "systems": {
            name: round(float(np.nanmean(m.ndcg)), 4) for name, m in sorted(metrics.items())
        },
    }


def _best_tuned(metrics: dict[str, RankMetrics]) -> dict[str, object] | None:
    """The best of the tuned heuristics, beside the full line: NDCG@20 and Recall@20."""
    names = [name for name in metrics if name.startswith("tuned_")]
    if not names:
        return None
    best = max(names, key=lambda name: float(np.nanmean(metrics[name].ndcg)))
    full, theirs = metrics["full_line"], metrics[best]
    ratio = paired_bootstrap(full.ndcg, theirs.ndcg).ratio
    return {
        "name": best.removeprefix("tuned_"),
        "ndcg@20": round(float(np.nanmean(theirs.ndcg)), 4),
        "recall@20": round(float(np.nanmean(theirs.recall)), 4),
        "best_recall@20": round(max(float(np.nanmean(metrics[n].recall)) for n in names), 4),
        "ratio": round(ratio.mean, 3),
        "ratio_interval": [round(ratio.low, 3), round(ratio.high, 3)],
    }


def main() -> None:
    """Measure the named sets, or all; print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], default=[])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("NEXTEDGE_DATA", HOME.parent / "shared" / "data")),
    )
    parser.add_argument(
        "--out", type=Path, default=HOME / "bench/quality/results" / time.strftime("%Y-%m-%d.json")
    )
    given = parser.parse_args()
    rows = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.sets or SETS:
        rows[name] = measure(name, given.data)
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
        Console(stderr=True).print(rows[name])
    table = Table(
        "set", "queries", "ndcg@20", "recall@20", "best single", "its ndcg@20", "ratio", "build s"
    )
    for name, row in rows.items():
        table.add_row(
            name,
            str(row["queries"]),
            str(row["ndcg@20"]),
            str(row["recall@20"]),
            row["best_single"],
            str(row["best_ndcg@20"]),
            f"{row['ratio']} {row['ratio_interval']}",
            str(row["build_s"]),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
