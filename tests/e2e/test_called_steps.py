"""The offline line called step by step, as a scheduler does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from servers import small_tables
from typer.testing import CliRunner

from nextedge import Event, Recommender
from nextedge.build.run import STEPS, BuildOptions
from nextedge.cli.main import app
from nextedge.errors import GateError, InputError
from nextedge.releases.lock import build_lock


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenant whose tables are known and whose run "monday" has come to the snapshot."""
    folder = small_tables(tmp_path_factory.mktemp("steps") / "acme")
    assert Recommender(folder).run_steps(BuildOptions(until="snapshot", run="monday")) is None
    return folder


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "acme"))


def steps_of(folder: Path, options: BuildOptions) -> dict[str, str]:
    """What a call says of its steps: "unchanged", or the first that it says."""
    told: dict[str, str] = {}

    def progress(text: str, done: int, total: int) -> None:
        name, _, rest = text.partition(":")
        told.setdefault(name.split()[0], rest.strip() or "ran")

    Recommender(folder).run_steps(options, progress=progress)
    return told


def connect(folder: Path) -> None:
    recommender = Recommender(folder)
    recommender.record(Event(type="connect", user_id=1, candidate_id=2))
    recommender.close()


def files_of(folder: Path, release: str | None) -> dict[str, str]:
    assert release is not None
    files = dict(Recommender(folder).releases.get(release).manifest["files"])
    del files["build.json"]  # what the steps took
    return files


def test_steps_one_by_one_give_the_release_of_one_build(folder: Path, tmp_path: Path) -> None:
    whole = small_tables(tmp_path / "whole" / "acme")
    for place, step in enumerate(STEPS):
        told = steps_of(folder, BuildOptions(until=step, run="monday"))
        unchanged = [name for name, what in told.items() if what == "unchanged"]
        assert unchanged == list(STEPS[: max(place, 3)])[: place + 1]
        assert not Recommender(folder).releases.all()
    release = Recommender(folder).run_steps(BuildOptions(promote=False, run="monday"))
    assert Recommender(folder).releases.current_id() is None
    assert files_of(folder, release) == files_of(whole, Recommender(whole).build())


def test_a_run_goes_on_with_the_inputs_it_began_with(folder: Path) -> None:
    connect(folder)
    assert steps_of(folder, BuildOptions(until="snapshot", run="monday")) == dict.fromkeys(
        ("tables", "entities", "snapshot"), "unchanged"
    )
    assert "unchanged" not in steps_of(folder, BuildOptions(until="tables")).values()
    assert "unchanged" not in steps_of(folder, BuildOptions(until="tables", fresh=True)).values()


def test_a_run_that_lost_its_tables_begins_again(folder: Path) -> None:
    shutil.rmtree(folder / "state" / "work")
    connect(folder)
    steps_of(folder, BuildOptions(until="tables", run="monday"))
    assert steps_of(folder, BuildOptions(until="tables"))["tables"] == "unchanged"


def test_a_run_publishes_once_and_again_under_other_settings(folder: Path) -> None:
    recommender = Recommender(folder)
    first = recommender.run_steps(BuildOptions(run="monday", promote=False))
    connect(folder)
    assert recommender.run_steps(BuildOptions(run="monday", promote=False)) == first
    assert recommender.releases.current_id() is None
    assert recommender.run_steps(BuildOptions(run="monday")) == first
    assert recommender.releases.current_id() == first
    assert recommender.run_steps(BuildOptions(run="tuesday")) != first
    assert {path.name for path in (folder / "state" / "runs").iterdir()} == {
        "monday.json",
        "tuesday.json",
    }
    with (folder / "nextedge.toml").open("a") as settings:
        settings.write("[surfaces.people]\nk = 7\n")
    assert Recommender(folder).run_steps(BuildOptions(run="monday")) != first


@pytest.mark.parametrize("name", ["../../etc", "scheduled__2026-11-22T03:00:00+00:00", "…"])
def test_any_name_is_a_name(folder: Path, name: str) -> None:
    before = {path for path in folder.parent.rglob("*") if "work" not in path.parts}
    steps_of(folder, BuildOptions(until="tables", run=name))
    made = {path for path in folder.parent.rglob("*") if "work" not in path.parts} - before
    (note,) = (path for path in made if path.suffix == ".json")
    assert note.parent == folder / "state" / "runs"


def test_names_that_cannot_be_are_said(folder: Path) -> None:
    recommender = Recommender(folder)
    with pytest.raises(InputError, match="did you mean 'snapshot'"):
        recommender.run_steps(BuildOptions(until="snapshots"))
    with pytest.raises(InputError, match="--run ''"):
        recommender.run_steps(BuildOptions(run=""))
    with pytest.raises(InputError, match="expected 1 to"):
        recommender.run_steps(BuildOptions(run="x" * 300))


def test_a_second_call_waits_for_the_first(folder: Path) -> None:
    state = folder / "state"
    command = [sys.executable, "-m", "nextedge", "build", str(folder), "--until", "tables"]
    with build_lock(state):
        refused = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert refused.returncode == 1
        assert "another build holds the lock: process" in refused.stderr
        waiting = subprocess.Popen(
            [*command, "--wait", "300", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert "waiting for another build: process" in waiting.stderr.readline()
    out, err = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, err
    assert json.loads(out) == {"until": "tables", "release": None}


def test_waiting_ends(tmp_path: Path) -> None:
    """The lock is had as soon as it is free, and not before."""
    order: list[str] = []

    def second() -> None:
        with build_lock(tmp_path, 60, lambda *_: asked.set()):
            order.append("second")

    asked = threading.Event()
    with build_lock(tmp_path):
        other = threading.Thread(target=second)
        other.start()
        assert asked.wait(60)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_what_a_killed_step_left_goes(folder: Path) -> None:
    work = folder / "state" / "work"
    (tables,) = work.glob("tables-*")
    left = work / f".{tables.name}.1"
    tables.rename(left)  # as a kill in the middle of the step would leave it
    steps_of(folder, BuildOptions(until="tables"))
    assert tables.exists()
    assert not left.exists()


def test_the_gate_of_the_command_line(folder: Path) -> None:
    recommender = Recommender(folder)
    good, bad = recommender.build(), recommender.build(promote=False)
    manifest = recommender.releases.get(bad).path / "manifest.json"
    told = json.loads(manifest.read_text())
    told["metrics"]["people"]["ndcg@20"] *= 0.5
    manifest.write_text(json.dumps(told))
    done = CliRunner().invoke(app, ["releases", "gate", good, "-c", str(folder)])
    assert done.exit_code == 0
    assert f"release {good} may be served in the place of {good}" in done.output
    refused = CliRunner().invoke(app, ["releases", "gate", bad, "-c", str(folder), "--json"])
    assert isinstance(refused.exception, GateError)
    assert refused.exception.exit_code == 1
    assert json.loads(refused.output)["faults"] == str(refused.exception).split("\n")
