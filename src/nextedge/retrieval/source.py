"""What a candidate source is, what it may read, and how sources are found by name."""

from __future__ import annotations

import copy
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nextedge.discovery import import_modules, named_subclasses
from nextedge.graph.propagate import SparseRows
from nextedge.graph.scope import Scope
from nextedge.storage.arrays import mapped
from nextedge.storage.files import writing
from nextedge.types import CONNECTS, ENGAGES, Candidates, FloatArray, Relation, Requests

Arrays = dict[str, np.ndarray]
Options = Mapping[str, Any]


class Source(ABC):
    """A candidate source: for each query the candidates it proposes, with a score.

    A new source is one file in this package with one subclass: it is found by its ``name``.
    ``fit`` reads the snapshot once per release and returns the arrays that requests need.
    """

    name: ClassVar[str]
    relations: ClassVar[tuple[Relation, ...]] = (CONNECTS, ENGAGES)
    defaults: ClassVar[Options] = {}
    enabled: ClassVar[bool] = True
    """Whether it runs where the configuration says nothing of it."""
    reason: ClassVar[str]
    """Reason code given when this source ranked a recommendation best."""

    def __init__(self, scope: Scope, options: Options, arrays: Arrays) -> None:
        self.scope = scope
        self.options = {**self.defaults, **options}
        self.arrays = arrays

    def over(self, scope: Scope) -> Source:
        """The same source, as it was fitted, over other edges of the same entities."""
        other = copy.copy(self)
        other.scope = scope
        return other

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        """Whether the tenant's tables hold what this source reads."""
        return True

    @classmethod
    def fit(cls, scope: Scope, options: Options) -> Arrays:
        """Arrays to keep with the release; none by default."""
        return {}

    @abstractmethod
    def candidates(self, requests: Requests, limit: int) -> Candidates:
        """At most ``limit`` candidates per query, best first, with a float32 ``score``."""

    def evidence(self, query: int, candidate: int) -> tuple[str, dict[str, object]] | None:
        """What made this source propose a candidate, in words and as values, where it can say."""
        return None

    @abstractmethod
    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        """float32[R]: this source's score of given pairs, 0 where it has none."""


def source_classes() -> dict[str, type[Source]]:
    """Every source in ``nextedge.retrieval``, by name; discovered, never listed."""
    import_modules("nextedge.retrieval")
    return named_subclasses(Source)  # type: ignore[type-abstract]


def sparse_from_arrays(arrays: Arrays, prefix: str) -> SparseRows:
    """Sparse rows kept by ``sparse_arrays``."""
    return SparseRows(
        arrays[f"{prefix}_indptr"],
        arrays[f"{prefix}_indices"],
        arrays[f"{prefix}_values"],
        int(arrays[f"{prefix}_columns"]),
    )


def sparse_arrays(rows: SparseRows, prefix: str) -> Arrays:
    """Sparse rows as named arrays, to be kept with a release."""
    return {
        f"{prefix}_indptr": rows.indptr,
        f"{prefix}_indices": rows.indices,
        f"{prefix}_values": rows.values,
        f"{prefix}_columns": np.array(rows.columns),
    }


def save_arrays(arrays: Arrays, folder: Path) -> None:
    """Write the arrays of a source into a new folder, whole or not at all."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    with writing(folder):
        partial.mkdir()
        try:
            for part, values in arrays.items():
                np.save(partial / f"{part}.npy", values)
            shutil.rmtree(folder, ignore_errors=True)  # by a task that was tried again
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def load_sources(directory: Path) -> dict[str, Arrays]:
    """Memory-map the arrays of every source in a folder."""
    return {
        folder.name: {file.stem: mapped(file) for file in sorted(folder.glob("*.npy"))}
        for folder in sorted(directory.iterdir())
        if folder.is_dir()
    }
