"""Re-ranking: the head of every list in the order of a model that sees both neighborhoods.

The candidates of the head change positions; the scores of the positions stay, best first. So they
stay calibrated, and nothing moves between the head and the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nextedge.config import RerankerConfig
from nextedge.graph.scope import Scope
from nextedge.models.rankers.cross_attention import MANIFEST, CrossAttention, HeadList, head_numbers
from nextedge.ranking.neighborhoods import Vectors, neighborhood_vectors, neighborhoods
from nextedge.storage.arrays import mapped
from nextedge.types import Candidates, FloatArray, Requests

FOLDER = "reranker"
"""Within a ranker's folder."""


@dataclass(frozen=True, eq=False)
class Reranker:
    """The fitted model over one scope."""

    scope: Scope
    model: CrossAttention

    def rerank(self, requests: Requests, ranked: Candidates, score: str) -> Candidates:
        """The same rows, the first ``depth`` of each query in a new order.

        Args:
            ranked: best first.
            score: name of the column whose values stay at their positions.
        """
        order = np.arange(len(ranked))
        for row, rows in enumerate(ranked.rows()):
            head = head_of(self.scope, self.model.settings, requests, ranked, row, score)
            if len(head.label):
                value = self.model.scores(head.neighborhoods, head.head)
                best = np.argsort(-value, kind="stable")  # ties in the ranker's order
                order[rows.start : rows.start + len(best)] = rows.start + best
        # The scores stay in place: they are calibrated, the model's values are not.
        return ranked.take(order).with_columns(**{score: ranked.columns[score]})

    def save(self, directory: Path, served: Scope) -> None:
        """Write the model, and the vectors of the scope that is served, into a new folder."""
        directory.mkdir()
        self.model.save(directory)
        # Saved, because the decomposition would delay every process that loads the release.
        vectors = neighborhood_vectors(served)
        np.save(directory / "query.npy", vectors.query)
        np.save(directory / "candidate.npy", vectors.candidate)

    @classmethod
    def load(cls, directory: Path, scope: Scope, *, served: bool) -> Reranker | None:
        """Read what ``save`` wrote, or None where nothing is.

        Args:
            served: the scope is the one that it was saved for.
        """
        if not (directory / MANIFEST).exists():
            return None
        if served:
            arrays = (mapped(directory / f"{n}.npy") for n in ("query", "candidate"))
            neighborhood_vectors.put(Vectors(*arrays), scope)
        return cls(scope, CrossAttention.load(directory))


def head_of(
    scope: Scope,
    settings: RerankerConfig,
    requests: Requests,
    ranked: Candidates,
    row: int,
    score: str,
    label: FloatArray | None = None,
) -> HeadList:
    """The first ``depth`` rows of one query as the model sees them.

    Args:
        label: float32[R] of all rows; 0 for None.
    """
    start = int(ranked.indptr[row])
    rows = slice(start, min(start + settings.depth, int(ranked.indptr[row + 1])))
    sampled = neighborhoods(
        scope, int(requests.query[row]), ranked.candidate[rows], requests.now, settings.neighbors
    )
    labels = np.zeros(rows.stop - rows.start, np.float32) if label is None else label[rows]
    return HeadList(sampled, head_numbers(ranked.columns[score][rows]), labels)
