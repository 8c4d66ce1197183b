"""The gate: what speaks against serving a release."""

from __future__ import annotations

from pathlib import Path

from nextedge.releases.gate import faults
from nextedge.releases.manifest import Release


def release(**ndcg: float) -> Release:
    metrics = {name: {"ranker": "lightgbm", "ndcg@20": value} for name, value in ndcg.items()}
    return Release("R", Path(), {"surfaces": list(ndcg), "metrics": metrics})


def test_a_release_may_lose_a_little_and_no_more() -> None:
    served = release(people=0.40, items=0.20)
    assert faults(release(people=0.37, items=0.25), served, 0.1) == []
    assert faults(release(people=0.37, items=0.25), served, 0.05) != []
    (fault,) = faults(release(people=0.41, items=0.17), served, 0.1)
    assert fault == "items: ndcg@20 0.1700 is more than 10% below 0.2000 of the served release"


def test_no_served_surface_may_go_missing() -> None:
    served = release(people=0.4, items=0.2)
    assert faults(release(people=0.4), served, 1.0) == [
        "the surface items is served and is not in release R"
    ]
    assert faults(served, release(people=0.4), 0.1) == []  # a new one is welcome


def test_what_cannot_be_compared_is_not() -> None:
    assert faults(release(people=0.1), None, 0.0) == []
    other = Release("S", Path(), {"surfaces": ["people"], "metrics": {"people": {"ndcg@5": 0.9}}})
    assert faults(release(people=0.1), other, 0.0) == []
