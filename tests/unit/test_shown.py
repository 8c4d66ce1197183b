"""Shown candidates: who tells the taken from the refused, on rows that no fit has read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.cli import render
from nextedge.evaluation import tables
from nextedge.evaluation.impressions import Choice, best_of_each, measure_impressions
from nextedge.evaluation.report import EvaluationReport
from nextedge.types import Candidates, Requests


def log(rows: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Taken by what a number says; candidates drawn evenly from ten."""
    random = np.random.default_rng(seed)
    query = random.integers(0, 400, rows)
    shown = random.integers(0, 10, rows)
    wanted = 0.05 + 0.4 * (shown == query % 10)
    return query, shown, random.random(rows) < wanted, wanted


def test_systems_are_told_apart_and_chance_is_chance() -> None:
    query, _, taken, wanted = log()
    noise = np.random.default_rng(1).random((len(query), 5))
    found = measure_impressions(
        taken, query, {"good": wanted[:, None], "noise": noise, "none": np.zeros((len(query), 1))}
    )
    assert found is not None
    good, bad, none = found.systems
    assert good.auc.low > 0.6 > bad.auc.high > 0.45
    assert bad.auc.low < 0.5 < bad.auc.high
    assert none.auc.mean == pytest.approx(0.5)
    assert good.log_loss.high < none.log_loss.low
    assert good.log_loss_saved > 0.05
    assert abs(none.log_loss_saved) < 0.01


def test_a_fit_never_reads_the_rows_it_is_judged_on() -> None:
    query, _, taken, _ = log(rows=2000)
    names = np.eye(400)[query]  # who it is tells all, if one has seen it
    found = measure_impressions(taken, query, {"name": names})
    assert found is not None
    assert abs(found.systems[0].auc.mean - 0.5) < 0.02


def test_the_value_of_another_choice_is_told_from_the_log() -> None:
    query, shown, taken, _ = log(rows=40_000)
    best = (shown == query % 10).astype(np.float64)
    choice = Choice(np.full(len(query), 0.1), {"good": best, "random": np.full(len(query), 0.1)})
    numbers = {"good": best[:, None], "random": np.zeros((len(query), 1))}
    found = measure_impressions(taken, query, numbers, choice)
    assert found is not None
    good, random = (system.value for system in found.systems)
    assert good is not None
    assert random is not None
    assert good.snips.low < 0.45 < good.snips.high
    assert random.snips.mean == pytest.approx(taken.mean())
    assert good.effective_rows == pytest.approx(best.sum())


def test_too_little_says_nothing() -> None:
    query, _, taken, wanted = log(rows=60)
    assert (
        measure_impressions(taken & (np.arange(60) < 5), query, {"good": wanted[:, None]}) is None
    )


def test_the_best_of_each_request_share_its_places() -> None:
    score = np.array([1.0, 3.0, 2.0, 5.0])
    chance = best_of_each(score, np.array([0, 0, 0, 1]), 2)
    np.testing.assert_allclose(chance, [0, 0.5, 0.5, 1.0])


def test_pairs_that_no_source_found_are_scored_beside_the_others(tenant: Path) -> None:
    line = Recommender(tenant).release.surface("items").line
    requests = Requests(np.array([4, 9], np.int32), line.scope.snapshot.as_of, 5)
    found = line.retrieve(requests)
    everything = np.arange(line.scope.graph.targets, dtype=np.int32)
    given = Candidates(
        np.array([0, len(everything), len(everything) + 3]),
        np.concatenate((everything, everything[:3])),
    )
    both = line.consider(requests, given)
    first = both.candidate[: both.indptr[1]]
    assert sorted(first) == everything.tolist()
    assert set(everything[:3]) <= set(both.candidate[both.indptr[1] :])
    np.testing.assert_array_equal(first[: found.indptr[1]], found.candidate[: found.indptr[1]])
    matrix, plain = line.matrix(requests, both), line.matrix(requests, found)
    np.testing.assert_array_equal(matrix[: found.indptr[1]], plain[: found.indptr[1]])
    assert np.isfinite(line.score(requests, both, matrix)).all()


def test_a_build_measures_the_impressions_of_its_last_window(
    tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recommender = Recommender(tenant)
    plain = json.loads(json.dumps(recommender.evaluation()["people"]))
    report = EvaluationReport.from_json(plain)
    assert report.shown is not None
    assert {s.name for s in report.shown.systems} == {
        "full_line",
        "logistic_regression",
        "popularity",
        "random",
    }
    named = {system.name: system for system in report.shown.systems}
    assert named["full_line"].auc.mean > named["random"].auc.mean
    render.print_rows(tables.impression_rows(report))
    assert "impressions of" in capsys.readouterr().out
