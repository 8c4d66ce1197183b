"""What a fault leaves behind: nothing half-written, the old release serving, a build that resumes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command

from nextedge import Recommender
from nextedge.build.run import STEPS
from nextedge.releases.lock import build_lock

DIES = """
import os, signal, sys
from nextedge import Recommender
from nextedge.releases import repository
from nextedge.build.run import OF_SURFACE, EntitiesStep, SnapshotStep, TablesStep

def dies(place, name):
    whole = getattr(place, name)
    def killed(*given):
        whole(*given)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(place, name, killed)

directory, victim = sys.argv[1:]
if victim == "publish":
    dies(repository, "new_manifest")
for cls in (TablesStep, EntitiesStep, SnapshotStep, *(step for step, _ in OF_SURFACE)):
    if cls.name == victim:
        dies(cls, "run")
Recommender(directory).build(progress=lambda text, *_: print(text, flush=True))
"""


QUICK = "".join(
    f'[surfaces.{name}.ranker]\ncompare = ["best_source"]\n' for name in ("people", "items")
)


def write_tables(directory: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    for name, left, right in (
        ("connections", "src", "dst"),
        ("interactions", "user_id", "item_id"),
    ):
        ends = random.integers(0, 60, (700, 2))
        table = pa.table({left: ends[:, 0], right: ends[:, 1]})
        pq.write_table(table, directory / f"{name}.parquet")


def answers(directory: Path) -> list[list[object]]:
    recommender = Recommender(directory)
    return [
        [found.id for found in recommender.recommend(user, surface, 10).recommendations]
        for user in (1, 7, 30)
        for surface in ("people", "items")
    ]


def steps_in_order(directory: Path) -> list[str]:
    """Names of the steps as a build comes to them."""
    seen: list[str] = []
    Recommender(directory).build(promote=False, progress=lambda text, *_: seen.append(text))
    names = [text.split(":")[0] for text in seen if text.endswith(": unchanged")]
    return list(dict.fromkeys(names))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("faults")
    write_tables(directory, 1)
    (directory / "nextedge.toml").write_text(QUICK)
    Recommender(directory).build()
    return directory


@pytest.fixture
def changed(built: Path, tmp_path: Path) -> Path:
    """A built tenant whose tables have changed since."""
    directory = tmp_path / "tenant"
    shutil.copytree(built, directory)
    write_tables(directory, 2)
    return directory


@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.slow), 9], ids=["each step", "one step in nine"]
)
def test_a_kill_at_any_step_leaves_the_old_release_and_what_was_done(
    built: Path, changed: Path, every: int
) -> None:
    """Slow: a process a step."""
    before, served = answers(changed), Recommender(changed).release.id
    steps = steps_in_order(built)
    assert set(steps) == set(STEPS)
    finished: list[str] = []
    for victim in [*steps[::every], "publish"]:
        command = [sys.executable, "-c", DIES, str(changed), victim]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL, f"{victim}: {done.stderr}"
        for step in finished:
            assert f"{step}: unchanged" in done.stdout, f"{step} ran again in {victim}"
        # The victim's own work is lost.
        finished = steps[: steps.index(victim)] if victim in steps else steps
        assert Recommender(changed).release.id == served
        assert answers(changed) == before
    done = run_command("build", changed, "--json")
    assert done.returncode == 0, done.stderr
    assert all(f"{step}: unchanged" in done.stderr for step in STEPS), "only publishing was left"
    assert Recommender(changed).release.id != served
    state = changed / "state"
    left = [path.name for part in ("work", "releases") for path in (state / part).glob(".*")]
    assert not left, "killed builds leave nothing once one has ended"


@pytest.fixture
def small_disk(changed: Path, tmp_path: Path) -> Iterator[Path]:
    """The tenant on a disk of 32 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk; needs root")
    try:
        shutil.copytree(changed, disk / "tenant")
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(
    "free_kib", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (24, 120))]
)
def test_a_full_disk_is_said_and_harms_nothing(small_disk: Path, free_kib: int) -> None:
    tenant, ballast = small_disk / "tenant", small_disk / "ballast"
    before = answers(tenant)
    usage = os.statvfs(small_disk)
    ballast.write_bytes(bytes(max(usage.f_bavail * usage.f_frsize - free_kib * 1024, 0)))
    done = run_command("build", tenant)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert "No space left" in done.stderr
    assert answers(tenant) == before
    ballast.unlink()
    assert run_command("build", tenant).returncode == 0
    assert answers(tenant) != before


def test_the_second_build_says_who_holds_the_lock(changed: Path) -> None:
    with build_lock(changed / "state"):
        done = run_command("build", changed)
    assert done.returncode == 1
    assert f"process {os.getpid()} on " in done.stderr
    assert run_command("build", changed).returncode == 0, "the lock is free again"


def test_an_altered_release_is_refused_and_the_one_before_answers(changed: Path) -> None:
    first = Recommender(changed).release.id
    assert run_command("build", changed).returncode == 0
    second = Recommender(changed).release.id
    victim = changed / "state/releases" / second / "snapshot/connections/indices.npy"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x05")
    done = run_command("recommend", "-c", changed, "--surface", "people", "--user", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert "connections/indices.npy was altered" in done.stderr
    assert Recommender(changed).release.id == first
    shutil.rmtree(changed / "state/releases" / first)
    done = run_command("recommend", "-c", changed, "--surface", "people", "--user", "3")
    assert (done.returncode, "was altered" in done.stderr) == (1, True)


def test_what_was_misspelt_is_named_with_the_nearest(changed: Path) -> None:
    done = run_command("recommend", "-c", changed, "--surface", "peple", "--user", "3")
    assert (done.returncode, "did you mean 'people'" in done.stderr) == (2, True)
    done = run_command("recommend", "-c", changed, "--surface", "people", "--user", "no-such")
    assert (done.returncode, "no-such" in done.stderr) == (2, True)
    (changed / "nextedge.toml").write_text("[surfaces.people]\ncandiates = 10\n")
    done = run_command("build", changed)
    assert (done.returncode, "did you mean 'candidates'" in done.stderr) == (2, True)


def test_a_file_of_settings_alone_has_the_tables_of_its_folder(built: Path, tmp_path: Path) -> None:
    directory = tmp_path / "tenant"
    shutil.copytree(built, directory)
    (directory / "nextedge.toml").write_text("[surfaces.people]\ncandidates = 99\n")
    config = Recommender(directory).config
    assert config.data.connections == "connections.parquet"
    assert config.surfaces["people"].candidates == 99


def test_empty_tables_are_said_before_anything_is_written(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"src": pa.array([], pa.int64()), "dst": pa.array([], pa.int64())}),
        tmp_path / "connections.parquet",
    )
    done = run_command("build", tmp_path)
    assert done.returncode == 2, done.stderr
    assert "connections" in done.stderr
    assert "Traceback" not in done.stderr
