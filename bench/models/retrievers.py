"""Every retrieval model for items alone, fitted on the same pairs and ranked in full, in one run.

    python bench/models/retrievers.py TRAIN.parquet VALIDATION.parquet [--models ease als …]
    python bench/models/retrievers.py TRAIN.parquet --last 2 [--models sasrec slist …]

Columns: user_id, item_id and, for ``--last``, position or timestamp: the item so far from the end
is the validation and later ones are dropped. All models keep their default settings.
``published_ease`` is Steck: "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019,
equation 8, over all candidates: two N x N matrices (13.5 GB at 41,000). ``popular`` is the count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import sparse

from nextedge.evaluation.ranking import rank_metrics
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.model import TrainingData, model_classes
from nextedge.models.scoring import top_candidates
from nextedge.types import ENGAGES, IndexArray

Lists = tuple[np.ndarray, np.ndarray]
"""(indptr, candidates) of the queries."""


def split(given: argparse.Namespace) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs to learn from, in order where there is one, and pairs to find."""
    rows = pl.read_parquet(given.train)
    named = [name for name in ("position", "timestamp") if name in rows.columns]
    rows = rows.select(
        "user_id", "item_id", pl.col(named[0]).alias("time") if named else pl.lit(0).alias("time")
    )
    if given.last:
        back = pl.col("time").rank("ordinal", descending=True).over("user_id")
        held = rows.filter(back == given.last)
        return rows.filter(back > given.last), held
    held = pl.read_parquet(given.validation).select("user_id", "item_id")
    return rows.join(held, on=["user_id", "item_id"], how="anti"), held


def graphs(train: pl.DataFrame, held: pl.DataFrame) -> tuple[Graph, Graph]:
    """Both as graphs of the users and items of the first."""
    users, items = (train[name].unique().sort() for name in ("user_id", "item_id"))
    held = held.filter(
        pl.col("user_id").is_in(users.implode()) & pl.col("item_id").is_in(items.implode())
    )

    def of(pairs: pl.DataFrame) -> Graph:
        user = np.searchsorted(users.to_numpy(), pairs["user_id"].to_numpy()).astype(np.int32)
        item = np.searchsorted(items.to_numpy(), pairs["item_id"].to_numpy()).astype(np.int32)
        when = pairs["time"].to_numpy().astype(np.int64) + 1 if "time" in pairs.columns else None
        return build_graph(user, item, len(users), len(items), None, when)

    return of(train), of(held)


def published_ease(graph: Graph, queries: IndexArray, penalty: float = 200.0) -> Lists:
    """B = I - P diag(1 / diag P), P the inverse of the Gram matrix + penalty."""
    ones = np.ones(graph.edges, np.float32)
    shape = (len(graph), graph.targets)
    matrix = sparse.csr_matrix((ones, graph.indices, graph.indptr), shape, copy=True)
    gram = (matrix.T @ matrix).tocoo()
    full = torch.zeros((graph.targets, graph.targets))
    place = [torch.from_numpy(side.astype(np.int64)) for side in (gram.row, gram.col)]
    full[place[0], place[1]] = torch.from_numpy(gram.data)
    full.diagonal().add_(penalty)
    lower = torch.linalg.cholesky(full)
    del full
    weights = torch.cholesky_inverse(lower)
    del lower
    weights /= -weights.diagonal().clone()
    weights.fill_diagonal_(0.0)
    made = []
    indptr, history = graph.gather(queries)
    for begin, end in itertools.pairwise(indptr):
        own = torch.from_numpy(history[begin:end].astype(np.int64))
        score = weights[own].sum(dim=0)
        score[own] = -torch.inf
        made.append(torch.topk(score, 20).indices.numpy().astype(np.int32))
    return np.arange(len(queries) + 1) * 20, np.concatenate(made)


def implicit_als(graph: Graph, queries: IndexArray) -> dict[str, Lists]:
    """The ``implicit`` library's ALS of as many dimensions and sweeps as ours, over a grid."""
    import implicit

    shape = (len(graph), graph.targets)
    ones = np.ones(graph.edges, np.float32)
    matrix = sparse.csr_matrix((ones, graph.indices, graph.indptr), shape, copy=True)
    made = {}
    for alpha in (1.0, 10.0, 40.0):
        for regularization in (0.01, 1.0, 10.0, 100.0):
            model = implicit.als.AlternatingLeastSquares(
                factors=256,
                iterations=10,
                alpha=alpha,
                regularization=regularization,
                use_gpu=False,
                random_state=0,
            )
            model.fit(matrix, show_progress=False)
            found, _ = model.recommend(queries, matrix[queries], N=20)
            ends = np.arange(len(queries) + 1) * 20
            made[f"implicit_als alpha={alpha:g} regularization={regularization:g}"] = (
                ends,
                found.astype(np.int32).ravel(),
            )
    return made


def popular(graph: Graph, queries: IndexArray) -> Lists:
    """The candidates with most edges that a query does not have."""
    order = np.argsort(-graph.target_degree, kind="stable").astype(np.int32)
    made = [order[: 20 + graph.degree[q]] for q in queries]
    made = [m[~np.isin(m, graph.row(q))][:20] for m, q in zip(made, queries, strict=True)]
    return np.concatenate(([0], np.cumsum([len(m) for m in made]))), np.concatenate(made)


def fitted(name: str, graph: Graph, queries: IndexArray) -> Lists:
    """Lists of a model with its default settings."""
    model = model_classes()[name]()
    say = lambda text, done, total: print(f"  {text} {done}/{total}", end="\r", flush=True)  # noqa: E731
    artifact = model.fit(TrainingData(ENGAGES, graph), model.config_class(), say)
    top = top_candidates(artifact, graph, queries, 20, graph.gather(queries))
    return top.indptr, top.candidate


def main() -> None:
    """Fit each, rank, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("validation", type=Path, nargs="?")
    parser.add_argument("--last", type=int, default=0)
    parser.add_argument("--models", nargs="+", default=None)
    parser.add_argument("--queries", type=int, default=6_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    graph, positives = graphs(*split(given))
    asked = np.flatnonzero(positives.degree).astype(np.int32)
    size = min(given.queries, len(asked))
    queries = np.sort(np.random.default_rng(0).choice(asked, size, replace=False))
    indptr, positive = positives.gather(queries)
    extra = {"popular": popular, "published_ease": published_ease}
    rows = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    for name in given.models or ["popular", *sorted(set(model_classes()) - {"spectral"})]:
        started = time.perf_counter()
        if name == "implicit_als":
            several = implicit_als(graph, queries)
        else:
            made = extra[name](graph, queries) if name in extra else fitted(name, graph, queries)
            several = {name: made}
        seconds = (time.perf_counter() - started) / len(several)
        for label, lists in several.items():
            rows[label] = {"seconds": round(seconds, 1), "queries": size}
            for k in (10, 20):
                found = rank_metrics(*lists, indptr, positive, k=k)
                rows[label] |= {
                    f"recall@{k}": round(float(np.nanmean(found.recall)), 4),
                    f"ndcg@{k}": round(float(np.nanmean(found.ndcg)), 4),
                }
            print(f"{label:>16}", rows[label], flush=True)
        if given.out:
            given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
