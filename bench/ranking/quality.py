"""What each ranker, the re-ranker and each feature is worth on real data.

    python bench/ranking/quality.py [SET …] [--ablate] [--data DIR] [--out FILE.json]

Every ranker is learned from the same rows of the same label windows and ranks the same candidates
of the same queries of a test part that no build saw; the best source's order and the merge's
rough score stand beside them. Choose nothing by the test part. With ``--ablate`` features are
left out one by one and group by group, and what that costs is read off the last label window.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "quality"))
from run import HOME, SETS, _commit

from nextedge import Recommender
from nextedge.build.rank import RankStep
from nextedge.build.time_split.window_pipeline import batches
from nextedge.build.training_set.reranker import train_reranker
from nextedge.build.training_set.training_set import TrainingSet
from nextedge.config import RankerConfig
from nextedge.data.ids import IdMap
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.evaluation.bootstrap import paired_bootstrap
from nextedge.evaluation.classification import classification_metrics
from nextedge.evaluation.ranking import rank_metrics
from nextedge.features.feature import feature_groups
from nextedge.graph.csr import Graph, build_graph, mirrored
from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.learners import Task, learners
from nextedge.models.rankers.ndcg import ndcg_of_rows
from nextedge.models.rankers.training import train
from nextedge.progress import quiet
from nextedge.ranking.pipeline import SCORE
from nextedge.ranking.reranker import Reranker

DATA = HOME.parent / "shared" / "data"
RANKERS = ("lightgbm", "xgboost", "mlp", "two_tower", "blend", "best_source")
ABLATION_ROWS = 60_000
ABLATION_TREES = 40
MOST_QUERIES = 6_000


def measure(name: str, data: Path, *, ablate: bool) -> dict[str, object]:
    """Build one set, learn every ranker, and rank its test part."""
    surface, split = SETS[name]
    tables, test = split(data / name)
    folder = Path(tempfile.mkdtemp(prefix="nextedge-ranking-"))
    try:
        for table, frame in tables.items():
            frame.write_parquet(folder / f"{table}.parquet")
        recommender = Recommender(folder)
        reranked = recommender.config.surface(surface).model_copy(
            update={
                "reranker": recommender.config.surface(surface).reranker.model_copy(
                    update={"enabled": True}
                )
            }
        )
        config = recommender.config.model_copy(
            update={"surfaces": {**recommender.config.surfaces, surface: reranked}}
        )
        recommender.build([surface])
        work = folder / "state" / "work"
        steps = ("entities", "snapshot", "windows", "embed")
        inputs = {step: next(work.glob(f"{step}-*")) for step in steps}
        with LocalEngine() as engine:
            learned = RankStep(config, engine, surface).training_set(
                inputs, folder / "windows", quiet
            )
        about = {"set": name, "code": _commit(), "surface": surface}
        found = _rankers(recommender, surface, reranked, learned, test)
        if ablate:
            found["ablation"] = _ablation(recommender, surface, learned)
        return {**about, **found}
    finally:
        shutil.rmtree(folder)


def _test_pairs(recommender: Recommender, surface: str, test: pl.DataFrame) -> Graph:
    """The edges to find, query by query."""
    scope = recommender.release.surface(surface).line.scope
    entities = recommender.release.entities
    ids: IdMap = entities.users if surface == "people" else entities.items
    left = entities.users.positions(test.to_series(0).to_list())
    right = ids.positions(test.to_series(1).to_list())
    if surface == "people":
        left, right = mirrored(left, right)
    usable = (left >= 0) & (right >= 0)
    left, right = left[usable], right[usable]
    usable = scope.recommendable[right] & scope.snapshot.known_users[left]
    usable &= ~scope.graph.contains(left, right)
    return build_graph(left[usable], right[usable], len(scope.graph), scope.graph.targets)


def _rankers(recommender, surface, settings, learned: TrainingSet, test) -> dict[str, object]:  # type: ignore[no-untyped-def]
    line = recommender.release.surface(surface).line
    positives = _test_pairs(recommender, surface, test)
    queries = np.flatnonzero(positives.degree).astype(np.int32)
    if len(queries) > MOST_QUERIES:
        queries = np.sort(np.random.default_rng(0).choice(queries, MOST_QUERIES, replace=False))
    rankers, seconds, comparison = {}, {}, {}
    for kind in RANKERS:
        started = time.perf_counter()
        ranker, about = train(
            learned.rows, learned.pipelines.features.names, RankerConfig(model=kind, compare=())
        )
        seconds[kind] = round(time.perf_counter() - started, 1)
        rankers[kind], comparison[kind] = ranker, about["ndcg"].get(kind)
        trees = about["trees"] if kind == "lightgbm" else 0
        if kind == "lightgbm":
            started = time.perf_counter()
            model, rerank = train_reranker(learned.reranker_windows, ranker, trees, settings)
            seconds["reranker"] = round(time.perf_counter() - started, 1)
    second = None if model is None else Reranker(line.scope, model)
    lists: dict[str, list] = {}
    labels, scores = [], []
    for requests in batches(queries, line.scope.snapshot.as_of, 20):
        merged = line.retrieve(requests)
        matrix = line.matrix(requests, merged)
        lists.setdefault("rough_score", []).append(merged.head(20))
        for kind, ranker in rankers.items():
            score = ranker.predict(matrix)
            ranked = merged.with_columns(**{SCORE: score}).sorted_by(SCORE)
            lists.setdefault(kind, []).append(ranked.head(20))
            if kind == "lightgbm":
                labels.append(
                    positives.contains(requests.query[merged.row_query], merged.candidate)
                )
                scores.append(score)
                if second is not None:
                    lists.setdefault("lightgbm + re-ranker", []).append(
                        second.rerank(requests, ranked, SCORE).head(20)
                    )
    indptr, positive = positives.gather(queries)
    ndcg = {}
    for kind, parts in lists.items():
        ends = np.concatenate(([0], np.cumsum(np.concatenate([np.diff(p.indptr) for p in parts]))))
        found = rank_metrics(ends, np.concatenate([p.candidate for p in parts]), indptr, positive)
        ndcg[kind] = found.ndcg
    quality = classification_metrics(np.concatenate(labels), np.concatenate(scores))
    return {
        "queries": len(queries),
        "features": len(learned.pipelines.features.names),
        "rows": sum(len(part.label) for part in learned.rows),
        "ndcg@20": {kind: round(float(np.nanmean(v)), 4) for kind, v in ndcg.items()},
        "lightgbm_over": {
            kind: _ratio(ndcg["lightgbm"], v) for kind, v in ndcg.items() if kind != "lightgbm"
        },
        "by_windows": comparison,
        "seconds": seconds,
        "reranker": rerank,
        "auc": round(quality.auc, 4),
        "calibration_error": round(quality.calibration_error, 5),
    }


def _ratio(one: np.ndarray, other: np.ndarray) -> list[float]:
    ratio = paired_bootstrap(one, other).ratio
    return [round(value, 3) for value in (ratio.mean, ratio.low, ratio.high)]


def _ablation(recommender: Recommender, surface: str, learned: TrainingSet) -> dict[str, object]:
    """NDCG@20 of the last label window, and its ratio where features are left out."""
    parts = [part for part in learned.rows if (part.label > 0).any()]
    training, later = _some(LabelledRows.joined(parts[:-1])), parts[-1]
    names = learned.pipelines.features.names
    scope = recommender.release.surface(surface).line.scope
    groups = {
        group.name: [f.name for f in group.declare(scope) if f.name in names]
        for group in feature_groups(scope.relation)
    }
    whole, importance = _fitted(training, later, names, [])
    dropped = {f"group {name}": own for name, own in groups.items() if own}
    dropped |= {name: [name] for name in names}
    found = {}
    for name, without in dropped.items():
        quality, _ = _fitted(training, later, names, without)
        found[name] = round(quality / whole, 4)
    return {"ndcg@20": round(whole, 5), "without": found, "importance": importance}


def _some(rows: LabelledRows) -> LabelledRows:
    """The first queries of a random order, as many rows as an ablation takes."""
    if len(rows.label) <= ABLATION_ROWS:
        return rows
    start = np.concatenate(([0], np.cumsum(rows.group)))
    order = np.random.default_rng(0).permutation(len(rows.group))
    size = np.cumsum(rows.group[order])
    chosen = np.sort(order[: int(np.searchsorted(size, ABLATION_ROWS))])
    kept = np.concatenate([np.arange(start[q], start[q + 1]) for q in chosen])
    return LabelledRows(rows.matrix[kept], rows.label[kept], rows.group[chosen], rows.weight[kept])


def _fitted(
    training: LabelledRows, later: LabelledRows, names: list[str], without: list[str]
) -> tuple[float, dict[str, float]]:
    kept = [place for place, name in enumerate(names) if name not in without]
    own = [names[place] for place in kept]
    rows = LabelledRows(training.matrix[:, kept], training.label, training.group, training.weight)
    ranker = learners()["lightgbm"].whole(Task(own, RankerConfig()), rows, ABLATION_TREES)
    score = ranker.raw(later.matrix[:, kept])
    return ndcg_of_rows(score, later.label, later.group, weight=later.weight), ranker.importance()


def main() -> None:
    """Measure the named sets, or all; print tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], default=[])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument(
        "--out", type=Path, default=HOME / "bench/ranking/results" / time.strftime("%Y-%m-%d.json")
    )
    given = parser.parse_args()
    rows = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.sets or SETS:
        rows[name] = {**rows.get(name, {}), **measure(name, given.data, ablate=given.ablate)}
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
        Console(stderr=True).print({k: v for k, v in rows[name].items() if k != "ablation"})
    table = Table("set", "queries", *(kind for kind in next(iter(rows.values()))["ndcg@20"]))
    for name, row in rows.items():
        table.add_row(name, str(row["queries"]), *(str(v) for v in row["ndcg@20"].values()))
    Console().print(table)


if __name__ == "__main__":
    main()
