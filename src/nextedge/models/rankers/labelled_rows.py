"""Labelled rows of label queries: what every ranker is trained on and judged by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from nextedge.models.rankers.ndcg import ndcg_of_rows
from nextedge.storage.files import writing
from nextedge.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Candidate rows grouped by query.

    Attributes:
        matrix: float32[R, F] features.
        label: float32[R], above 0 where the candidate became an edge: the worth of the action, 1
            unless the settings weigh actions or positions.
        group: int64[Q] rows of each query, in order.
        weight: float32[R], how many candidates of its query each row stands for: 1 where it
            is certain to be kept, 1 / rate where it is sampled at that rate.
    """

    matrix: FloatArray
    label: FloatArray
    group: IntArray
    weight: FloatArray

    @property
    def positive(self) -> FloatArray:
        """float32[R]: 1 where the candidate became an edge, else 0."""
        return (self.label > 0).astype(np.float32)

    @property
    def importance(self) -> FloatArray:
        """float32[R]: weight of each row in a pointwise loss."""
        return self.weight * np.where(self.label > 0, self.label, np.float32(1.0))

    def save(self, path: Path) -> None:
        """Write one ``.npz``, whole or not at all."""
        # NumPy adds ``.npz`` to any name that does not end so.
        partial = path.with_name(f".{os.getpid()}.{path.name}")
        with writing(path):
            np.savez(partial, allow_pickle=False, **vars(self))
            os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> LabelledRows:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{part.name: arrays[part.name] for part in fields(cls)})

    @classmethod
    def joined(cls, parts: Sequence[LabelledRows]) -> LabelledRows:
        """The rows of several windows, one after the other."""
        columns = (np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls))
        return cls(*columns)


def ndcg_of(score: FloatArray, rows: LabelledRows) -> float:
    """NDCG@20 of scored rows."""
    return ndcg_of_rows(score, rows.label, rows.group, weight=rows.weight)
