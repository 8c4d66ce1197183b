"""The published EASE over all candidates, beside this project's local form, in one run.

    python bench/models/ease_dense.py TRAIN.parquet VALIDATION.parquet [--without VALIDATION]

Steck: "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8. Both are given
the same pairs and the same full ranking of everything that a query does not have; Recall@20 and
NDCG@20. The published form holds an N x N matrix twice (float32: 13.5 GB at 41,000 candidates).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from nextedge.evaluation import rank_metrics
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.ease import Ease, EaseConfig
from nextedge.models.model import TrainingData
from nextedge.models.scoring import top_candidates
from nextedge.types import ENGAGES, FloatArray, IndexArray


def dense_weights(graph: Graph, penalty: float) -> torch.Tensor:
    """float32[N, N]: B = I - P diag(1 / diag P), P the inverse of the Gram matrix + penalty."""
    ones = np.ones(graph.edges, np.float32)
    from scipy import sparse

    matrix = sparse.csr_matrix(
        (ones, graph.indices, graph.indptr), (len(graph), graph.targets), copy=True
    )
    gram = (matrix.T @ matrix).tocoo()
    full = torch.zeros((graph.targets, graph.targets))
    full[
        torch.from_numpy(gram.row.astype(np.int64)), torch.from_numpy(gram.col.astype(np.int64))
    ] = torch.from_numpy(gram.data)
    full.diagonal().add_(penalty)
    lower = torch.linalg.cholesky(full)
    del full
    inverse = torch.cholesky_inverse(lower)
    del lower
    inverse /= -inverse.diagonal().clone()
    inverse.fill_diagonal_(0.0)
    return inverse


def dense_lists(graph: Graph, weights: torch.Tensor, queries: IndexArray) -> FloatArray:
    """int32[Q, 20]: the best of every query."""
    made = []
    for start in range(0, len(queries), 500):
        rows = queries[start : start + 500]
        indptr, history = graph.gather(rows)
        score = torch.zeros((len(rows), graph.targets))
        for place in range(len(rows)):
            own = torch.from_numpy(history[indptr[place] : indptr[place + 1]].astype(np.int64))
            score[place] = weights[own].sum(dim=0)
            score[place, own] = -torch.inf
        made.append(torch.topk(score, 20).indices.numpy().astype(np.int32))
    return np.concatenate(made)


def main() -> None:
    """Fit both, rank, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("--queries", type=int, default=6_000)
    parser.add_argument("--penalty", type=float, nargs="+", default=[200.0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    train = pl.read_parquet(given.train).select("user_id", "item_id")
    held = pl.read_parquet(given.validation).select("user_id", "item_id")
    train = train.join(held, on=["user_id", "item_id"], how="anti")
    users, items = (train[name].unique().sort() for name in ("user_id", "item_id"))
    held = held.filter(
        pl.col("user_id").is_in(users.implode()) & pl.col("item_id").is_in(items.implode())
    )

    def graph_of(pairs: pl.DataFrame) -> Graph:
        user = np.searchsorted(users.to_numpy(), pairs["user_id"].to_numpy()).astype(np.int32)
        item = np.searchsorted(items.to_numpy(), pairs["item_id"].to_numpy()).astype(np.int32)
        return build_graph(user, item, len(users), len(items))

    graph, positives = graph_of(train), graph_of(held)
    asked = np.flatnonzero(positives.degree).astype(np.int32)
    random = np.random.default_rng(0)
    queries = np.sort(random.choice(asked, min(given.queries, len(asked)), replace=False))
    indptr, positive = positives.gather(queries)
    rows: dict[str, dict[str, float]] = {}

    def measure(name: str, ends: np.ndarray, lists: np.ndarray, seconds: float) -> None:
        found = rank_metrics(ends, lists, indptr, positive)
        rows[name] = {
            "recall@20": round(float(np.nanmean(found.recall)), 4),
            "ndcg@20": round(float(np.nanmean(found.ndcg)), 4),
            "seconds": round(seconds, 1),
        }
        print(name, rows[name], flush=True)

    started = time.perf_counter()
    local = Ease().fit(TrainingData(ENGAGES, graph), EaseConfig(), lambda *_: None)
    top = top_candidates(local, graph, queries, 20, graph.gather(queries))
    measure("local", top.indptr, top.candidate, time.perf_counter() - started)
    for penalty in given.penalty:
        started = time.perf_counter()
        weights = dense_weights(graph, penalty)
        lists = dense_lists(graph, weights, queries)
        del weights
        ends = np.arange(len(queries) + 1) * 20
        measure(
            f"published, penalty {penalty:g}", ends, lists.ravel(), time.perf_counter() - started
        )
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
