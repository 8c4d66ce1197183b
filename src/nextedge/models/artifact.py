"""The artifact of a fitted model: an immutable folder of arrays beside a JSON manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from nextedge.errors import ReleaseError
from nextedge.graph.csr import Graph
from nextedge.storage.arrays import mapped
from nextedge.types import FloatArray, IndexArray, IntArray

MANIFEST = "model.json"
FORMAT = 1
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Artifact:
    """Arrays of a fitted model, its settings and the facts of its training.

    Attributes:
        model: name of the model.
        config: its settings, as JSON.
        arrays: array name → array. ``query`` and ``candidate`` are float32 embeddings whose dot
            product is the score; ``similar_indptr``, ``similar_indices`` and ``similar_values``
            are sparse candidate × candidate weights.
        about: seed, metrics, training log, fingerprint of the data.
    """

    model: str
    config: Mapping[str, Any]
    arrays: Arrays
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_graph(
        cls, model: str, config: BaseModel, graph: Graph, seed: int, arrays: Arrays
    ) -> Artifact:
        """The artifact of a model in closed form, with the fingerprint of its graph."""
        about = {"seed": seed, "data": fingerprint(graph.indptr, graph.indices)}
        return cls(model, config.model_dump(), arrays, about)

    def save(self, directory: Path) -> None:
        """Write a new folder, which appears whole or not at all.

        Raises:
            FileExistsError: the folder exists; an artifact never changes.
        """
        if directory.exists():
            raise FileExistsError(f"{directory}: an artifact is written once")
        # Beside the folder: a rename works within one file system only.
        partial = directory.with_name(f".{directory.name}.{os.getpid()}")
        try:
            partial.mkdir(parents=True)
            for name, values in self.arrays.items():
                np.save(partial / f"{name}.npy", values, allow_pickle=False)
            manifest = {
                "format": FORMAT,
                "model": self.model,
                "config": dict(self.config),
                "arrays": {name: _shape(values) for name, values in self.arrays.items()},
                "about": dict(self.about),
            }
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
            os.replace(partial, directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def load(cls, directory: Path) -> Artifact:
        """Memory-map a folder that ``save`` wrote.

        Raises:
            ReleaseError: the folder is incomplete, altered, or of another format.
        """
        try:
            manifest = json.loads((directory / MANIFEST).read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ReleaseError(f"{directory / MANIFEST}: not a model's manifest: {error}") from None
        if manifest.get("format") != FORMAT:
            raise ReleaseError(
                f"{directory / MANIFEST}: format {manifest.get('format')!r}, expected {FORMAT}; "
                "build the release again"
            )
        arrays = {}
        for name, expected in manifest["arrays"].items():
            file = directory / f"{name}.npy"
            try:
                arrays[name] = mapped(file)
            except (OSError, ValueError) as error:
                raise ReleaseError(f"{file}: cannot be read: {error}") from None
            if _shape(arrays[name]) != expected:
                raise ReleaseError(f"{file}: not the array that {MANIFEST} describes")
        return cls(manifest["model"], manifest["config"], arrays, manifest["about"])


def similar_arrays(indptr: IntArray, indices: IndexArray, values: FloatArray) -> Arrays:
    """Sparse candidate similarities under their names in an artifact."""
    return {
        "similar_indptr": indptr.astype(np.int64),
        "similar_indices": indices.astype(np.int32),
        "similar_values": values.astype(np.float32),
    }


def _shape(values: np.ndarray) -> dict[str, Any]:
    return {"shape": list(values.shape), "dtype": str(values.dtype)}


def arrays_below(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with a prefix, by the rest of their names.

    >>> arrays_below({"weight.a": np.zeros(1), "seen": np.ones(1)}, "weight.")
    {'a': array([0.])}
    """
    return {name[len(prefix) :]: arrays[name] for name in arrays if name.startswith(prefix)}


def fingerprint(*arrays: np.ndarray) -> str:
    """Hash of arrays, with their shapes and types."""
    digest = hashlib.sha256()
    for values in arrays:
        # Arrays of other shapes or types may have the same bytes.
        digest.update(str((values.shape, values.dtype)).encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:20]
