"""Trainings by several processes: the same result as by one, and what is left when one is lost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fit_models
import numpy as np
import psutil
import pytest

from nextedge.config import TrainingConfig
from nextedge.errors import TooLittleDataError, TrainingError
from nextedge.graph.csr import build_graph
from nextedge.graph.sampler import sample_neighbors
from nextedge.models.artifact import Artifact
from nextedge.models.distributed.collectives import Ranks
from nextedge.models.distributed.job import (
    ARTIFACT,
    JOB,
    failure,
    load_data,
    save_data,
    write_failure,
    write_job,
)
from nextedge.models.distributed.launcher import ProgressOfRanks, SparkLauncher, fit
from nextedge.models.distributed.worker import work
from nextedge.models.model import TrainingData
from nextedge.models.neural.graph_partition import Partitioned, Replicated
from nextedge.models.neural.graphsage import GraphSage
from nextedge.models.neural.node_inputs import GraphSageConfig, messages_of
from nextedge.models.neural.trainer import CHECKPOINT
from nextedge.models.neural.training_graph import training_graph
from nextedge.testing.models import planted
from nextedge.types import CONNECTS, ENGAGES

torch = pytest.importorskip("torch")

EPOCHS = 5
CONFIG = GraphSageConfig.model_validate({"trainer": {"epochs": EPOCHS}, "hidden": 64})
NOISE = 0.02
"""Of an embedding's entry, which lies between -1 and 1: sums in another order, grown by Adam."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NEXTEDGE_THREADS": "1"}


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """People in planted groups, with a feature that says nothing."""
    found, _, _ = planted(CONNECTS)
    noise = np.random.default_rng(1).standard_normal((len(found.graph), 3)).astype(np.float32)
    return replace(found, query_features=noise, candidate_features=noise)


@pytest.fixture(scope="module")
def alone(data: TrainingData) -> Artifact:
    """What one process makes of them."""
    return GraphSage().fit(data, CONFIG, lambda *_: None)


def quality(fitted: Artifact) -> float:
    """Validation NDCG@20 of the epoch that was kept."""
    log = fitted.about["log"]
    return float(log["validation"][log["best_epoch"]])


def check_same(fitted: Artifact, alone: Artifact) -> None:
    assert quality(fitted) == pytest.approx(quality(alone), abs=0.01)
    np.testing.assert_allclose(
        fitted.about["log"]["loss"], alone.about["log"]["loss"], rtol=1e-4, atol=1e-4
    )
    for side in ("query", "candidate"):
        np.testing.assert_allclose(fitted.arrays[side], alone.arrays[side], atol=NOISE)


@pytest.mark.slow
def test_torchrun_gives_every_model_what_one_process_gives(tmp_path: Path) -> None:
    script = str(Path(fit_models.__file__))
    subprocess.run([*TORCHRUN, script, str(tmp_path)], check=True, env=ENVIRONMENT, timeout=400)
    for name, model, config, data in fit_models.trainings():
        expected = fit_models.fitted(model, config, data).arrays
        first, second = (dict(np.load(tmp_path / f"{name}-{rank}.npz")) for rank in (0, 1))
        for part, values in second.items():
            if part not in ("query", "candidate"):
                np.testing.assert_array_equal(values, first[part], err_msg=f"{name}: {part}")
        for side in ("query", "candidate"):
            np.testing.assert_allclose(
                first[side], expected[side], atol=NOISE, err_msg=f"{name}: {side}"
            )


@pytest.mark.slow
def test_a_partitioned_graph_by_the_torchrun_command(
    data: TrainingData, alone: Artifact, tmp_path: Path
) -> None:
    write_job(tmp_path, GraphSage(), replace(data, partitioned=True), CONFIG)
    command = [*TORCHRUN, "-m", "nextedge.models.distributed.worker", str(tmp_path)]
    subprocess.run(command, check=True, env=ENVIRONMENT, timeout=300)
    fitted = Artifact.load(tmp_path / ARTIFACT)
    check_same(fitted, alone)
    told = fitted.about["processes"]
    assert told["number"] == 2 and told["graph"] == "partitioned"
    graph = training_graph("graphsage", data, CONFIG)
    whole = Replicated(graph.messages, graph.means, Ranks()).footprint()["held_bytes"]
    assert max(told["held_bytes"]) < 0.6 * int(whole)
    assert min(told["sent_bytes_a_step"]) > 0
    assert not (tmp_path / CHECKPOINT).exists()


def children(rank: int | None = None) -> list[psutil.Process]:
    """Processes of trainings below this one, of a rank or all."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "nextedge.models.distributed.worker" in process.cmdline() and (
                rank is None or process.environ().get("RANK") == str(rank)
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_what_an_interrupt_and_a_kill_leave_is_gone_on_with_by_another_number(
    tmp_path: Path,
) -> None:
    # Enough edges that an epoch lasts longer than it takes to be told of the one before.
    data = replace(planted(CONNECTS, users=500)[0], directory=tmp_path / "training")
    told: list[int] = []

    def interrupt(text: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(GraphSage(), data, CONFIG, interrupt, TrainingConfig(processes=2))
    assert children() == []
    assert (tmp_path / "training" / CHECKPOINT).exists()

    def kill(text: str, done: int, total: int) -> None:
        for process in children(1):
            process.kill()

    lost = r"process 1 of 2 .*in epoch \d of 5.*SIGKILL.*same command again"
    with pytest.raises(TrainingError, match=lost):
        fit(GraphSage(), data, CONFIG, kill, TrainingConfig(processes=2))
    assert children() == []

    def remember(text: str, done: int, total: int) -> None:
        told.append(done)

    fitted = fit(GraphSage(), data, CONFIG, remember, TrainingConfig(processes=4))
    assert told[0] > 2  # not from the beginning
    assert fitted.about["processes"]["number"] == 4
    assert list((tmp_path / "training").iterdir()) == []
    check_same(fitted, GraphSage().fit(replace(data, directory=None), CONFIG, remember))


@pytest.mark.slow
def test_an_error_of_a_process_is_told_as_by_one(tmp_path: Path) -> None:
    few = build_graph(np.int32([0, 1]), np.int32([1, 0]), 5, 5)
    data = replace(planted(CONNECTS)[0], graph=few, directory=tmp_path)
    with pytest.raises(TooLittleDataError, match="graphsage: 0 edges to learn from"):
        fit(GraphSage(), data, CONFIG, lambda *_: None, TrainingConfig(processes=2))
    assert not (tmp_path / ARTIFACT).exists()


def test_the_error_of_the_lowest_rank_is_told(tmp_path: Path) -> None:
    for rank in (10, 2, 11):
        write_failure(tmp_path, rank, TrainingError(f"rank {rank}"))
    assert str(failure(tmp_path)) == "rank 2"


def test_a_port_in_use_and_a_missing_job_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert work(tmp_path) == 1
    assert JOB in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        settings = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "nextedge.models.distributed.worker", str(tmp_path)]
        ended = subprocess.run(
            command, env={**ENVIRONMENT, **settings}, capture_output=True, text=True, timeout=120
        )
    assert ended.returncode == 1
    assert f"do not meet at 127.0.0.1:{port}" in ended.stderr
    assert "a port that is free" in ended.stderr


def test_more_processes_than_rows_are_refused() -> None:
    shares = [Ranks(rank, 3).share(10) for rank in range(3)]
    rows = [np.arange(10)[share.rows].tolist() for share in shares]
    assert [row for share in rows for row in share] == list(range(10))
    assert sum(share.part for share in shares) == pytest.approx(1.0)
    with pytest.raises(TrainingError, match=r"8 processes share batches of 4 rows.*\[training\]"):
        Ranks(0, 8).share(4)


def test_parts_of_a_graph_hold_every_node_once_and_sample_as_the_whole() -> None:
    data, _, _ = planted(ENGAGES)
    messages = messages_of(data, data.graph, CONFIG)
    random = np.random.default_rng(0)
    means = {
        "query": random.standard_normal((len(data.graph), 6)).astype(np.float32),
        "candidate": random.standard_normal((data.graph.targets, 6)).astype(np.float32),
    }
    parts = [Partitioned(messages, means, Ranks(rank, 3)) for rank in range(3)]
    for kind, x in means.items():
        whole = np.concatenate([part.x[kind].numpy() for part in parts])
        np.testing.assert_array_equal(whole, x)
    held = [part.footprint()["held_bytes"] for part in parts]
    assert max(held) < 1.2 * min(held)
    for at, message in enumerate(messages):
        nodes = np.sort(random.choice(len(message.graph), 40, replace=False)).astype(np.int32)
        expected = sample_neighbors(message.graph, nodes, 4, 11)
        found = [
            part.neighbors(at, nodes[part.share(message.into, nodes).rows], 4, 11) for part in parts
        ]
        assert np.concatenate([one[1] for one in found]).tolist() == expected[1].tolist()


def test_training_data_comes_back_as_it_was_written(tmp_path: Path) -> None:
    data = replace(planted(CONNECTS)[0], seed=7, partitioned=True)
    features = np.ones((len(data.graph), 2), np.float32)
    data = replace(
        data,
        query_features=features,
        candidate_features=features,
        others={"engagements": planted(ENGAGES)[0].graph},
    )
    save_data(data, tmp_path / "data")
    found = load_data(tmp_path / "data")
    assert (found.relation, found.seed, found.partitioned) == (CONNECTS, 7, True)
    assert found.candidate_features is found.query_features
    np.testing.assert_array_equal(found.query_features, features)
    for one, other in (
        (found.graph, data.graph),
        (found.others["engagements"], data.others["engagements"]),
    ):
        for part in ("indptr", "indices", "weight", "first", "last"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
        assert one.targets == other.targets


# TorchDistributor leaves the pipe of its torchrun to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("local", [True, False], ids=["driver", "barrier"])
@pytest.mark.slow
def test_spark_starts_the_processes(
    data: TrainingData,
    alone: Artifact,
    tmp_path: Path,
    local: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pyspark")
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    try:
        write_job(tmp_path, GraphSage(), data, CONFIG)
        told: list[int] = []
        tell = ProgressOfRanks(
            tmp_path / "progress.jsonl", "graphsage", lambda _, done, __: told.append(done)
        )
        SparkLauncher(2, local=local).run(tmp_path, tell)
        if not local:
            with pytest.raises(TrainingError, match="Spark runs 2 tasks"):
                SparkLauncher(64).run(tmp_path, tell)
        check_same(Artifact.load(tmp_path / ARTIFACT), alone)
        tell.read()
        assert told[-1] == len(alone.about["log"]["loss"])
    finally:
        session.stop()
