"""The value of both caches of ranked lists."""

from __future__ import annotations

from dataclasses import dataclass

from nextedge.types import Candidates, FloatArray


@dataclass(frozen=True)
class RankedList:
    """Ranked candidates of a batch, before the policy.

    Attributes:
        candidates: best first, with a ``score``, and in ``ROW`` their row in ``matrix``.
        matrix: float32[R, F] features of the candidates, None where nothing ranked them.
        degraded: what the deadline or a fault left out.
    """

    candidates: Candidates
    matrix: FloatArray | None
    degraded: tuple[str, ...]
