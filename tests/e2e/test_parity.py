"""One request alone meets the batch's candidates, features and scores; what differs is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nextedge import Recommender
from nextedge.cli.main import app
from nextedge.evaluation.parity import check_parity
from nextedge.features.feature import FeatureSet
from nextedge.stages.line import Line
from nextedge.types import Candidates, Requests


@pytest.fixture(scope="module")
def built(tenant: Path) -> Recommender:
    return Recommender(tenant)


def test_every_surface_is_equal_bit_for_bit(built: Recommender) -> None:
    for report in built.parity(25):
        assert report.equal, report.to_json()
        assert report.rows > 100
        assert report.features > 20


def test_the_command_says_what_was_compared(built: Recommender) -> None:
    where = str(built.config.base)
    arguments = ["evaluate", "-c", where, "--parity", "--queries", "5"]
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert all(each["equal"] and each["queries"] == 5 for each in found.values())
    assert "equal bit for bit" in CliRunner().invoke(app, arguments).stdout


def test_a_feature_that_depends_on_the_batch_is_named(
    built: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = next(iter(built.release.surfaces.values())).line
    plain, name = FeatureSet.matrix, line.features.names[3]

    def drifting(self: FeatureSet, given):  # type: ignore[no-untyped-def]
        found = plain(self, given)
        found[:, 3] = len(given.requests)
        return found

    monkeypatch.setattr(FeatureSet, "matrix", drifting)
    report = check_parity(line, "people", 0, 5)
    assert not report.equal
    assert report.mismatches[name].largest == pytest.approx(4.0)
    assert report.mismatches[name].rows == report.rows


def test_a_candidate_that_only_the_batch_has_is_said_in_plain_json(
    built: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = next(iter(built.release.surfaces.values())).line
    plain = Line.retrieve

    def shorter(self: Line, requests: Requests) -> Candidates:
        found = plain(self, requests)
        return found if len(requests) > 1 else found.head(10)

    monkeypatch.setattr(Line, "retrieve", shorter)
    found = check_parity(line, "people", 0, 3).to_json()
    assert [each["column"] for each in found["mismatches"]] == ["candidates"]
    assert "NaN" not in json.dumps(found)
