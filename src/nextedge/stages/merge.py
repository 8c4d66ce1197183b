"""Merge: the union of all sources' candidates, each keeping every source's score and rank.

The rough order is ``rough(c) = Σ_s worth_s(rank_s(c))`` (see ``fusion``); the best ``limit`` go on
to the ranker.
"""

from __future__ import annotations

from collections.abc import Mapping

import numba
import numpy as np

from nextedge.graph.threads import run_blocks
from nextedge.stages.fusion import Fusion
from nextedge.stages.source import Source
from nextedge.types import BoolArray, Candidates, Requests

ROUGH = "rough_score"
NO_RANK = np.int16(32767)


def rank_column(source: str) -> str:
    """Name of the column that holds a source's rank (int16, from 1; NO_RANK where absent)."""
    return f"{source}_rank"


def score_column(source: str) -> str:
    """Name of the column that holds a source's score (float32; NaN where absent)."""
    return f"{source}_score"


def standard_column(score: str) -> str:
    """Name of the column that holds a score in standard deviations within its query."""
    return f"{score}_standard"


def with_standard_scores(candidates: Candidates) -> Candidates:
    """Every score column again, in standard deviations from its mean over the query's candidates.

    A score's scale differs from query to query (with the length of the history, say), which
    trees cannot undo; who stands out among the candidates of one query is what ranks them.
    Absent scores count as 0; where all are equal the column is 0. O(R) a column.
    """
    row = candidates.row_query
    size = np.maximum(np.diff(candidates.indptr), 1)
    columns = {}
    for name, values in candidates.columns.items():
        if name.endswith("_score"):
            score = np.nan_to_num(values.astype(np.float64))
            mean = np.bincount(row, score, minlength=candidates.queries) / size
            apart = score - mean[row]
            spread = np.sqrt(np.bincount(row, apart**2, minlength=candidates.queries) / size)
            scale = np.where(spread > 1e-12, spread, np.inf)
            columns[standard_column(name)] = (apart / scale[row]).astype(np.float32)
    return candidates.with_columns(**columns)


def gather_sources(
    sources: Mapping[str, Source], limits: Mapping[str, int], requests: Requests
) -> dict[str, Candidates]:
    """Each source's own candidates, best first."""
    return {name: source.candidates(requests, limits[name]) for name, source in sources.items()}


def merge_candidates(
    found: Mapping[str, Candidates],
    known: BoolArray,
    limit: int,
    fusion: Fusion | None = None,
) -> Candidates:
    """Union, dedup, rough score, best ``limit`` per query.

    Args:
        found: per source its candidates, best first, with a ``score``.
        known: bool[candidates], who may be recommended at all; the rest is left out.
        limit: most candidates per query after the merge.
        fusion: what a rank in each source is worth, default reciprocal ranks.

    Returns:
        Candidates ordered by rough score (ties by the smaller candidate), with columns
        ``rough_score``, ``<source>_score`` (NaN where absent), ``<source>_rank``, and each
        score's ``…_standard``.
    """
    names = list(found)
    parts = list(found.values())
    queries = parts[0].queries
    sizes = np.stack([np.diff(part.indptr) for part in parts])
    bounds = np.concatenate(([0], np.cumsum(sizes.T.ravel())))
    row = np.concatenate([part.row_query for part in parts]).astype(np.int64)
    kind = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(row * len(parts) + kind, kind="stable")
    candidate = np.concatenate([part.candidate for part in parts])[order]
    score = np.concatenate([part.columns["score"] for part in parts])[order]
    worth = (fusion or Fusion()).table(names)
    size = np.zeros(queries, np.int64)
    run_blocks(_count, queries, bounds, queries, len(parts), candidate, known, limit, size)
    start = np.concatenate(([0], np.cumsum(size)))
    kept, rough = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    scores = np.full((start[-1], len(parts)), np.nan, np.float32)
    ranks = np.full((start[-1], len(parts)), NO_RANK)
    run_blocks(
        _merge, queries, bounds, queries, len(parts), candidate, score.astype(np.float32), worth,
        known, start, kept, rough, scores, ranks,
    )  # fmt: skip
    columns: dict[str, np.ndarray] = {ROUGH: rough}
    for place, name in enumerate(names):
        columns[score_column(name)] = scores[:, place]
        columns[rank_column(name)] = ranks[:, place]
    return with_standard_scores(Candidates(start, kept, columns))


@numba.njit(cache=True, nogil=True)
def _count(block, blocks, bounds, queries, sources, candidate, known, limit, size):  # type: ignore[no-untyped-def]
    """How many distinct candidates each query keeps: at most the limit."""
    seen = np.full(len(known), -1, np.int32)
    for q in range(block, queries, blocks):
        count = 0
        for row in range(bounds[q * sources], bounds[(q + 1) * sources]):
            c = candidate[row]
            if seen[c] != q and known[c]:
                seen[c] = q
                count += 1
        size[q] = min(count, limit)


@numba.njit(cache=True, nogil=True)
def _merge(  # type: ignore[no-untyped-def]
    block, blocks, bounds, queries, sources, candidate, score, worth, known, start, kept, rough,
    scores, ranks,
):  # fmt: skip
    deepest = worth.shape[1] - 1
    total = np.zeros(len(known), np.float32)
    slot = np.full(len(known), -1, np.int64)
    for q in range(block, queries, blocks):
        low, high = bounds[q * sources], bounds[(q + 1) * sources]
        union = np.empty(high - low, np.int32)
        count = 0
        for s in range(sources):
            begin = bounds[q * sources + s]
            for row in range(begin, bounds[q * sources + s + 1]):
                c = candidate[row]
                if not known[c]:
                    continue
                if total[c] == 0.0:
                    union[count] = c
                    count += 1
                total[c] += worth[s, min(row - begin, deepest)]
        best = _best(total, np.sort(union[:count]), start[q + 1] - start[q])
        for place in range(len(best)):
            kept[start[q] + place] = best[place]
            rough[start[q] + place] = total[best[place]]
            slot[best[place]] = start[q] + place
        for s in range(sources):
            begin = bounds[q * sources + s]
            for row in range(begin, bounds[q * sources + s + 1]):
                at = slot[candidate[row]]
                if at >= 0:
                    scores[at, s] = score[row]
                    ranks[at, s] = min(row - begin + 1, 32766)
        for place in range(count):
            total[union[place]] = 0.0
            slot[union[place]] = -1


@numba.njit(cache=True, nogil=True)
def _best(total, union, n):  # type: ignore[no-untyped-def]
    """The n best of ``union`` (ascending), best first; ties by the smaller candidate."""
    value = np.empty(len(union), np.float32)
    for place in range(len(union)):
        value[place] = total[union[place]]
    order = np.argsort(-value, kind="mergesort")
    return union[order[:n]]
