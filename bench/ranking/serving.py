"""Milliseconds to score one request: 1,000 candidates x 100 features on one core.

    python bench/ranking/serving.py [--out FILE.json]

Each form beside its training library's own predict in the same run; p50 and p99 of 300 calls, and
the largest difference of the scores. The network is served by NumPy.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NEXTEDGE_THREADS"):  # before the imports
    os.environ.setdefault(name, "1")

import lightgbm
import numpy as np
import xgboost

from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.mlp import MlpRanker
from nextedge.models.rankers.tree_scorer import Forest

ROWS, COLUMNS = 1_000, 100


def data() -> tuple[np.ndarray, np.ndarray]:
    """30,000 rows to learn from, a tenth of the values missing."""
    random = np.random.default_rng(0)
    matrix = random.normal(size=(30_000, COLUMNS)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    known = np.nan_to_num(matrix)
    logit = known[:, 0] + known[:, 1] * known[:, 2] + random.normal(size=len(matrix)) - 1
    return matrix, (logit > 0).astype(np.float32)


def timed(call: Callable[[], Any], calls: int = 300) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    call()
    spent = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        spent.append((time.perf_counter() - started) * 1e3)
    return round(float(np.median(spent)), 3), round(float(np.quantile(spent, 0.99)), 3)


def row(name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, Any]:
    """One line of the table."""
    mine, library = timed(ours), timed(theirs)
    apart = float(np.abs(np.asarray(ours()) - np.asarray(theirs())).max())
    return {
        "ranker": name,
        "p50_ms": mine[0],
        "p99_ms": mine[1],
        "library_p50_ms": library[0],
        "library_p99_ms": library[1],
        "library / ours": round(library[0] / mine[0], 1),
        "largest_difference": apart,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    matrix, label = data()
    asked, rows = matrix[:ROWS].copy(), []
    for leaves, trees in ((15, 300), (31, 500), (64, 500)):
        settings = {"objective": "binary", "num_leaves": leaves, "verbosity": -1}
        booster = lightgbm.train(settings, lightgbm.Dataset(matrix, label), trees)
        forest = Forest.of_lightgbm(booster)
        rows.append(
            row(
                f"lightgbm {trees} x {leaves} leaves",
                lambda f=forest: f(asked),
                lambda b=booster: b.predict(asked, raw_score=True, num_threads=1),
            )
        )
        print(rows[-1], flush=True)
    settings = {
        "objective": "binary:logistic",
        "max_depth": 6,
        "eta": 0.05,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "nthread": 1,
    }
    booster = xgboost.train(settings, xgboost.DMatrix(matrix, label), 500)
    forest = Forest.of_xgboost(booster)
    rows.append(
        row(
            "xgboost 500 x depth 6",
            lambda: forest(asked),
            lambda: booster.inplace_predict(asked, predict_type="margin"),
        )
    )
    print(rows[-1], flush=True)
    groups = np.full(len(matrix) // 30, 30)
    labelled = LabelledRows(matrix, label, groups, np.ones(len(label), np.float32))
    network = MlpRanker.fit(labelled, [f"f{c}" for c in range(COLUMNS)], 0)
    p50, p99 = timed(lambda: network.raw(asked))
    rows.append({"ranker": "mlp 256-128-64", "p50_ms": p50, "p99_ms": p99})
    print(rows[-1], flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
