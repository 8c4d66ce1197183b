"""What embeddings add for people: the same build with and without them, query by query.

    python bench/quality/embeddings.py [SET …] [--data DIR] [--out FILE.json]

Each set is built twice. Slices by the query's edges. ``gain`` is the full line's NDCG@20 with
graphsage over that without, with a paired bootstrap interval. Sources alone stand beside them:
graphsage, Adamic-Adar and resource allocation (the latter two tuned as in ``run.py``). A set
named ``… cold`` hides all edges of a seeded tenth of the users, who are the queries.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from heuristics import tuned_heuristics
from rich.console import Console
from run import HOME, SETS, Split, random_edges, ranked

from nextedge import Recommender
from nextedge.evaluation.bootstrap import paired_bootstrap
from nextedge.serving.messages import RecommendationRequest

COLD = " cold"
SLICES = {"all": (0, None), "no edge": (0, 1), "1 to 4 edges": (1, 5), "5 or more": (5, None)}


def cold(folder: Path) -> Split:
    """All edges of a seeded tenth of the users are the test; the users' table stays."""
    tables, held = random_edges(folder)
    edges = pl.concat((tables["connections"], held))
    users = pl.concat((edges["src"], edges["dst"])).unique().sort()
    hidden = users.filter(pl.Series(np.random.default_rng(3).random(len(users)) < 0.1)).implode()
    out, into = pl.col("src").is_in(hidden), pl.col("dst").is_in(hidden)
    swapped = edges.filter(into & ~out).select(src="dst", dst="src")
    test = pl.concat((edges.filter(out & ~into).select("src", "dst"), swapped))
    return {**tables, "connections": edges.filter(~out & ~into)}, test


def build(
    tables: dict[str, pl.DataFrame], model: str, *, enabled: bool
) -> tuple[Recommender, Path]:
    """A release of the tables, the named source switched on or off."""
    folder = Path(tempfile.mkdtemp(prefix="nextedge-embeddings-"))
    for table, frame in tables.items():
        frame.write_parquet(folder / f"{table}.parquet")
    lines = ["[data]", *(f'{table} = "{table}.parquet"' for table in tables)]
    lines += [f"[surfaces.people.sources.{model}]", f"enabled = {str(enabled).lower()}"]
    (folder / "nextedge.toml").write_text("\n".join(lines) + "\n")
    recommender = Recommender(folder)
    recommender.build(["people"])
    return recommender, folder


def measure(name: str, data: Path, model: str) -> dict[str, object]:
    """Both builds of one set, by slice."""
    plain = name.removesuffix(COLD)
    tables, test = (cold if name.endswith(COLD) else SETS[plain][1])(data / plain)
    found, seconds = {}, {}
    for enabled in (True, False):
        started = time.perf_counter()
        recommender, folder = build(tables, model, enabled=enabled)
        seconds["with" if enabled else "without"] = round(time.perf_counter() - started, 1)
        positives, queries, edges, metrics = ranked(recommender, "people", test)
        if enabled:
            for source in (model, "two_hop", "profile", "popular"):
                if source in metrics:
                    found[source] = metrics[source].ndcg
            found["full_line"] = metrics["full_line"].ndcg
            coverage = _covered(recommender, queries[edges == 0])
            if not name.endswith(COLD):
                scope = recommender.release.surface("people").line.scope
                tuned = tuned_heuristics(scope.graph, scope.recommendable, positives, queries)
                for heuristic in ("adamic_adar", "resource_allocation"):
                    found[f"tuned_{heuristic}"] = tuned[heuristic][1].ndcg
        else:
            found["without"] = metrics["full_line"].ndcg
        shutil.rmtree(folder)
    rows: dict[str, object] = {}
    for label, (low, high) in SLICES.items():
        inside = (edges >= low) & (edges < (high or np.inf))
        if inside.sum() < 20:
            continue
        ratio = paired_bootstrap(found["full_line"][inside], found["without"][inside]).ratio
        rows[label] = {
            "queries": int(inside.sum()),
            # none where neither found anything
            "gain": [
                round(v, 4) if np.isfinite(v) else None for v in (ratio.mean, ratio.low, ratio.high)
            ],
            **{key: round(float(np.nanmean(v[inside])), 4) for key, v in found.items()},
        }
    return {"build_s": seconds, "no_edge": coverage, "slices": rows}


def _covered(recommender: Recommender, cold_queries: np.ndarray) -> dict[str, float]:
    """Of queries without an edge: the share with k results, and with all of them from a source
    that looks at the query (anything but overall popularity and trend).
    """
    if not len(cold_queries):
        return {}
    ids = recommender.release.entities.users.identifiers(cold_queries.tolist()).to_pylist()
    answers = recommender.recommend_many(ids, RecommendationRequest("people"))
    general = {"popular", "trending", "recent"}
    own = [all(set(r.sources) - general for r in a.recommendations) for a in answers]
    return {
        "queries": len(ids),
        "with_k": round(float(np.mean([len(a.recommendations) == 20 for a in answers])), 4),
        "personalised": round(float(np.mean(own)), 4),
    }


def main() -> None:
    """Measure the named sets; print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--model", default="graphsage")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("NEXTEDGE_DATA", HOME.parent / "shared" / "data")),
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/embeddings.json"
    )
    given = parser.parse_args()
    people = [name for name, (surface, _) in SETS.items() if surface == "people"]
    rows = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.sets or people:
        rows[name] = measure(name, given.data, given.model)
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
        Console().print(name, rows[name])


if __name__ == "__main__":
    main()
