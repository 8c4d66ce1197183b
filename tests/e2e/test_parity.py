"""One request alone meets the batch's candidates, features and scores; what differs is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.cli.main import app
from nextedge.evaluation.parity import check_parity
from nextedge.events.request_log import RequestLog
from nextedge.features.feature import FeatureSet
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.serving.replay import replay_features
from nextedge.types import Candidates, Requests


@pytest.fixture(scope="module")
def built(tenant: Path) -> Iterator[Recommender]:
    """Closed at the end, as its folder is copied and opened by other processes."""
    recommender = Recommender(tenant)
    yield recommender
    recommender.close()


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
    plain = RankingPipeline.retrieve

    def shorter(self: RankingPipeline, requests: Requests) -> Candidates:
        found = plain(self, requests)
        return found if len(requests) > 1 else found.head(10)

    monkeypatch.setattr(RankingPipeline, "retrieve", shorter)
    found = check_parity(line, "people", 0, 3).to_json()
    assert [each["column"] for each in found["mismatches"]] == ["candidates"]
    assert "NaN" not in json.dumps(found)


@pytest.fixture(scope="module")
def served(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenant that answered some requests over HTTP, all of whose features were kept."""
    folder = tmp_path_factory.mktemp("served") / "tenant"
    shutil.copytree(tenant, folder)
    settings = (folder / "nextedge.toml").read_text()
    settings = settings.replace("[serving]\n", "[serving]\nlog_features_share = 1.0\n")
    (folder / "nextedge.toml").write_text(settings)
    recommender = Recommender(folder)
    users = recommender.release.entities.users.identifiers(range(12)).to_pylist()
    with TestClient(create_app(recommender)) as client:
        for surface in ("people", "items"):
            for user in [*users, "a stranger"]:
                found = client.get(f"/v1/{surface}/recommendations", params={"user_id": user})
                assert found.status_code == 200
    return folder


def test_features_that_a_server_logged_are_computed_again(served: Path) -> None:
    log = list(RequestLog(served / "state", Recommender(served).config.serving).read())
    assert len(log) == 26
    assert all(len(each.candidates) == len(each.propensities) == 20 for each in log)
    assert all(each.fingerprint for each in log)
    for report in Recommender(served).replay():
        assert report.equal, report.to_json()
        assert report.requests == 13
        assert report.rows > 150
    found = CliRunner().invoke(app, ["evaluate", "-c", str(served), "--parity", "--queries", "2"])
    assert "13 logged requests" in found.stdout
    assert found.exit_code == 0


def test_a_logged_feature_that_differs_is_named(served: Path) -> None:
    recommender = Recommender(served)
    log = list(RequestLog(served / "state", recommender.config.serving).read(features=True))
    first = next(each for each in log if each.surface == "people")
    assert first.features is not None
    name = recommender.release.surface("people").line.features.names[2]
    wrong = first.features.copy()
    wrong[0, 2] = np.nan_to_num(wrong[0, 2]) + 1.0
    altered = dataclasses.replace(first, features=wrong)
    other = dataclasses.replace(first, release="an older one")
    report = replay_features(recommender.release, "people", [altered, other])
    assert [name] == list(report.mismatches)
    assert report.mismatches[name].rows == 1
    assert report.other_releases == 1
