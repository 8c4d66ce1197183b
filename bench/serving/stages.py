"""Milliseconds of each stage of an uncached request, in process, on one core.

    python bench/serving/stages.py [--tenant DIR] [--users N] [--candidates N] [--out FILE.json]

A synthetic tenant is built unless --tenant names one that is. p50 and p99 over 500 users.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before the imports
    os.environ.setdefault(name, "1")

import numpy as np

from nextedge import Question, Recommender
from nextedge.data.synthetic import SyntheticConfig, generate_tenant


def main() -> None:
    """Build, ask, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenant", type=Path)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--candidates", type=int, default=1_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    tenant = given.tenant or Path(tempfile.mkdtemp(prefix="nextedge-stages-"))
    if not (tenant / "state").exists():
        generate_tenant(tenant, SyntheticConfig(users=given.users))
        (tenant / "nextedge.toml").write_text("".join(
            f"[surfaces.{name}]\ncandidates = {given.candidates}\n" for name in ("people", "items")
        ))  # fmt: skip
        Recommender(tenant).build()
    os.environ["NEXTEDGE_THREADS"] = "1"
    os.sched_setaffinity(0, {0})
    recommender = Recommender(tenant)
    users = recommender.release.entities.users.values.to_pylist()
    order = np.random.default_rng(0).permutation(len(users))
    rows = {}
    for name, surface in recommender.release.surfaces.items():
        question = Question(name, 20)
        answers = [recommender.recommend_many([users[u]], question)[0] for u in order[:600]][100:]
        stages = {stage: [a.stages[stage] for a in answers] for stage in answers[0].stages}
        stages["features + ranking"] = [a.stages["features"] + a.stages["ranking"] for a in answers]
        stages["all"] = [a.latency_ms for a in answers]
        rows[name] = {
            "size": [surface.line.size, len(surface.line.features.names)],
            **{s: [round(float(np.quantile(v, q)), 2) for q in (0.5, 0.99)] for s, v in stages.items()},
        }  # fmt: skip
        print(name, json.dumps(rows[name]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
