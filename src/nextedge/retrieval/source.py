"""The contract of a candidate source, and its arrays in a release."""

from __future__ import annotations

import copy
import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np

from nextedge.config import Configurable, Settings
from nextedge.graph.propagate import SparseRows, pair_products, top_products
from nextedge.graph.scope import Scope
from nextedge.storage.arrays import mapped
from nextedge.storage.files import writing
from nextedge.types import CONNECTS, ENGAGES, Candidates, FloatArray, Relation, Requests

Arrays = dict[str, np.ndarray]


class NoConfig(Settings):
    """Settings of a source that has none."""


Config = TypeVar("Config", bound=Settings)


class Source(ABC, Configurable[Config], Generic[Config]):
    """A candidate source: proposes candidates for each query, with a score.

    A new source is one file in this package, or in a package with the entry point group
    ``nextedge.sources``: a subclass with a ``name``, whose type parameter is the class of its
    settings. Every model is a source already (see ``model_source``).
    """

    name: ClassVar[str]
    relations: ClassVar[tuple[Relation, ...]] = (CONNECTS, ENGAGES)
    """The relations whose edges it predicts."""
    enabled: ClassVar[bool] = True
    """Whether it runs if the configuration does not name it."""
    reason: ClassVar[str]
    """Code of the reason for a recommendation that this source ranks best."""

    def __init__(self, scope: Scope, config: Config, arrays: Arrays) -> None:
        self.scope = scope
        self.config = config
        self.arrays = arrays

    def over(self, scope: Scope) -> Source[Config]:
        """Return a copy with the same fitted arrays, over other edges of the same entities."""
        other = copy.copy(self)  # shallow: both share the arrays
        other.scope = scope
        return other

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        """Whether the tenant has the tables that this source reads."""
        return True

    @classmethod
    def fit(cls, scope: Scope, config: Config) -> Arrays:
        """Return the arrays that requests need, computed once for a release; none by default."""
        return {}

    @abstractmethod
    def candidates(self, requests: Requests, limit: int) -> Candidates:
        """Return at most ``limit`` candidates per query, best first, with a float32 ``score``."""

    def evidence(self, query: int, candidate: int) -> tuple[str, dict[str, object]] | None:
        """Why this source proposes a candidate, as a sentence and as values; None if unknown."""
        return None

    @abstractmethod
    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        """float32[R]: this source's score of each pair, 0 for a pair without one."""


class ProductSource(Source[Config]):
    """A source whose scores are the product of the queries' sparse rows and a sparse matrix."""

    @abstractmethod
    def rows(self, requests: Requests) -> SparseRows:
        """The row of each query."""

    @property
    @abstractmethod
    def matrix(self) -> SparseRows:
        """From the columns of the rows to the candidates."""

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        excluded = self.scope.excluded(requests)
        return top_products(self.rows(requests), self.matrix, limit, excluded)

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        rows = self.rows(requests)
        return pair_products(rows, self.matrix, candidates.indptr, candidates.candidate)


_SPARSE_PARTS = ("indptr", "indices", "values", "columns")


def sparse_from_arrays(arrays: Arrays, prefix: str) -> SparseRows:
    """Sparse rows from the arrays of ``sparse_arrays``."""
    indptr, indices, values, columns = (arrays[f"{prefix}_{part}"] for part in _SPARSE_PARTS)
    return SparseRows(indptr, indices, values, int(columns))


def sparse_arrays(rows: SparseRows, prefix: str) -> Arrays:
    """Sparse rows as named arrays of a source."""
    return {f"{prefix}_{part}": np.asarray(getattr(rows, part)) for part in _SPARSE_PARTS}


def save_arrays(arrays: Arrays, folder: Path) -> None:
    """Write the arrays of a source into a new folder, all or none."""
    # The process id keeps two attempts of one task out of each other's files.
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    with writing(folder):
        partial.mkdir()
        try:
            for part, values in arrays.items():
                np.save(partial / f"{part}.npy", values)
            shutil.rmtree(folder, ignore_errors=True)  # left by an earlier attempt of this task
            # A rename is all or none: no reader finds a part of the arrays.
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
