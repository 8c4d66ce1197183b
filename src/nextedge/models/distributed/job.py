"""The folder of a training by several processes: its input, progress, failures and result.

``job.json`` and ``data/`` (plain arrays, which all processes memory-map) are the input,
``artifact/`` is the result, ``progress.jsonl`` and ``failed-RANK.json`` report on the way. The
checkpoint lies beside them. All machines that take part must see the folder.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from nextedge import errors
from nextedge.errors import NextEdgeError, TrainingError
from nextedge.graph.csr import Graph
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData, model_classes
from nextedge.storage.arrays import mapped
from nextedge.storage.files import writing
from nextedge.types import Relation

JOB = "job.json"
DATA = "data"
ARTIFACT = "artifact"
LOGS = "logs"
PROGRESS = "progress.jsonl"
ENDED = "ended.json"
FAILED = "failed-{rank}.json"
_FEATURES = ("query_features", "candidate_features")


def write_job(folder: Path, model: Model, data: TrainingData, config: ModelConfig) -> None:
    """Write the input of ``run_job``, and delete all of a former job but its checkpoint.

    Raises:
        StorageError: the disk is full or refuses to be written.
    """
    # An artifact or failure of a former job would be taken for one of this job.
    clear_job(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_data(data, folder / DATA)
        job = {"model": model.name, "config": config.model_dump(mode="json")}
        # Last and by a rename: a folder with a job file has all of its input.
        partial = folder / f".{JOB}"
        partial.write_text(json.dumps(job, indent=1))
        os.replace(partial, folder / JOB)


def clear_job(folder: Path) -> None:
    """Delete everything of a job but its checkpoint."""
    for name in (DATA, ARTIFACT, LOGS, "training_graph"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (
        folder / JOB,
        folder / PROGRESS,
        folder / ENDED,
        *folder.glob(FAILED.format(rank="*")),
    ):
        path.unlink(missing_ok=True)


def save_data(data: TrainingData, folder: Path) -> None:
    """Write training data as ``.npy`` files and one of JSON."""
    folder.mkdir(parents=True)
    graphs = {"graph": data.graph, **{f"other-{name}": g for name, g in data.others.items()}}
    for name, graph in graphs.items():
        (folder / name).mkdir()
        graph.save(folder / name)
    # One array for both sides is stored and mapped once.
    same = data.candidate_features is data.query_features
    features = [name for name in _FEATURES[: 1 if same else 2] if getattr(data, name) is not None]
    for name in features:
        np.save(folder / f"{name}.npy", getattr(data, name), allow_pickle=False)
    about = {
        "relation": asdict(data.relation),
        "others": sorted(data.others),
        "features": features,
        "same_features": same,
        "seed": data.seed,
        "partitioned": data.partitioned,
    }
    (folder / "data.json").write_text(json.dumps(about, indent=1))


def load_data(folder: Path) -> TrainingData:
    """Memory-map the training data that ``save_data`` wrote."""
    about = json.loads((folder / "data.json").read_text())
    features = {name: mapped(folder / f"{name}.npy") for name in about["features"]}
    queries = features.get(_FEATURES[0])
    return TrainingData(
        Relation(**about["relation"]),
        Graph.load(folder / "graph"),
        queries,
        queries if about["same_features"] else features.get(_FEATURES[1]),
        others={name: Graph.load(folder / f"other-{name}") for name in about["others"]},
        seed=about["seed"],
        partitioned=about["partitioned"],
    )


def run_job(folder: Path, *, first: bool) -> None:
    """Fit the model of a job; the first process writes progress and the artifact.

    Raises:
        TrainingError: the folder holds no job, or the model could not be trained.
    """
    try:
        job = json.loads((folder / JOB).read_text())
        data = replace(load_data(folder / DATA), directory=folder)
    except (OSError, json.JSONDecodeError) as error:
        raise TrainingError(
            f"{folder}: no training to take part in ({error}); the folder that holds {JOB} must be "
            "seen by all machines"
        ) from None
    model = model_classes()[job["model"]]()
    config = model.config_class.model_validate(job["config"])
    fitted = model.fit(data, config, _writer(folder / PROGRESS) if first else lambda *_: None)
    if first:
        fitted.save(folder / ARTIFACT)


def _writer(path: Path) -> ModelProgress:
    def write(text: str, done: int, total: int) -> None:
        with path.open("a") as file:
            file.write(json.dumps([text, done, total]) + "\n")

    return write


def result(folder: Path) -> Artifact:
    """The artifact of a finished job, in memory."""
    # In memory, since the launcher deletes the folder next.
    saved = Artifact.load(folder / ARTIFACT)
    return replace(saved, arrays={name: np.array(values) for name, values in saved.arrays.items()})


def write_failure(folder: Path, rank: int, error: NextEdgeError) -> None:
    """Write the error of a process for the launcher."""
    failed = {"error": type(error).__name__, "text": str(error)}
    (folder / FAILED.format(rank=rank)).write_text(json.dumps(failed))


def failure(folder: Path) -> NextEdgeError | None:
    """The error of the process with the lowest rank, or None."""
    # by number: as text, rank 10 comes before rank 2
    files = folder.glob(FAILED.format(rank="*"))
    for path in sorted(files, key=lambda path: int(path.stem.rpartition("-")[2])):
        failed = json.loads(path.read_text())
        kind = getattr(errors, failed["error"], TrainingError)
        error: NextEdgeError = (kind if issubclass(kind, TrainingError) else TrainingError)(
            failed["text"]
        )
        return error
    return None
