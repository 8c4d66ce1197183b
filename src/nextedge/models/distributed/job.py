"""A training as a folder: what processes that train together are given, and what they leave.

``job.json`` and ``data/`` (plain arrays, memory-mapped by all) go in; ``artifact/`` comes out, with
``told.jsonl`` (progress) and ``failed-RANK.json`` on the way. The checkpoint lies beside them. All
machines that take part must see the folder.
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
TOLD = "told.jsonl"
ENDED = "ended.json"
FAILED = "failed-{rank}.json"
_FEATURES = ("query_features", "candidate_features")


def write_job(folder: Path, model: Model, data: TrainingData, config: ModelConfig) -> None:
    """Write what ``run_job`` needs; what a former job left goes, but for its checkpoint.

    Raises:
        StorageError: the disk is full or refuses to be written.
    """
    clear_job(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_data(data, folder / DATA)
        job = {"model": model.name, "config": config.model_dump(mode="json")}
        partial = folder / f".{JOB}"
        partial.write_text(json.dumps(job, indent=1))
        os.replace(partial, folder / JOB)


def clear_job(folder: Path) -> None:
    """Delete everything of a job but its checkpoint."""
    for name in (DATA, ARTIFACT, LOGS, "training_graph"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (
        folder / JOB,
        folder / TOLD,
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
    same = data.candidate_features is data.query_features
    kept = [
        n for n in _FEATURES if getattr(data, n) is not None and not (same and n == _FEATURES[1])
    ]
    for name in kept:
        np.save(folder / f"{name}.npy", getattr(data, name), allow_pickle=False)
    about = {
        "relation": asdict(data.relation),
        "others": sorted(data.others),
        "features": kept,
        "same_features": same,
        "seed": data.seed,
        "partitioned": data.partitioned,
    }
    (folder / "data.json").write_text(json.dumps(about, indent=1))


def load_data(folder: Path) -> TrainingData:
    """Memory-map what ``save_data`` wrote."""
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
    """Fit the model of a job's folder; the first process tells, and leaves the artifact.

    Raises:
        TrainingError: no job lies there, or the model could not be trained.
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
    fitted = model.fit(data, config, _teller(folder / TOLD) if first else lambda *_: None)
    if first:
        fitted.save(folder / ARTIFACT)


def _teller(path: Path) -> ModelProgress:
    def tell(text: str, done: int, total: int) -> None:
        with path.open("a") as file:
            file.write(json.dumps([text, done, total]) + "\n")

    return tell


def result(folder: Path) -> Artifact:
    """The artifact that a job left, in memory."""
    found = Artifact.load(folder / ARTIFACT)
    arrays = {name: np.array(values) for name, values in found.arrays.items()}
    return Artifact(found.model, found.config, arrays, found.about)


def write_failure(folder: Path, rank: int, error: NextEdgeError) -> None:
    """Leave a process's error for who started it."""
    told = {"error": type(error).__name__, "text": str(error)}
    (folder / FAILED.format(rank=rank)).write_text(json.dumps(told))


def failure(folder: Path) -> NextEdgeError | None:
    """The error that the lowest of the processes left, or None."""
    for path in sorted(folder.glob(FAILED.format(rank="*"))):
        told = json.loads(path.read_text())
        kind = getattr(errors, told["error"], TrainingError)
        if not issubclass(kind, TrainingError):
            kind = TrainingError
        error: NextEdgeError = kind(told["text"])
        return error
    return None
