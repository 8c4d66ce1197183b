"""Merge: the union of all sources' candidates, with the score and the rank in every source.

The rough order is ``rough(c) = Σ_s worth_s(rank_s(c))`` (see ``fusion``); the best ``limit`` go on
to the ranker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np

from nextedge.graph.threads import Scratch, run_blocks
from nextedge.retrieval.fusion import Fusion
from nextedge.retrieval.source import Source
from nextedge.types import (
    NO_RANK,
    ROUGH,
    BoolArray,
    Candidates,
    Requests,
    rank_column,
    score_column,
    standard_column,
)


def with_standard_scores(candidates: Candidates) -> Candidates:
    """Every score column again, in standard deviations from its mean over the query's candidates.

    A score's scale differs from query to query (with the length of the history, for example), and
    trees cannot correct that. Absent scores count as 0; where all are equal the column is 0. O(R) a
    column.
    """
    names = [name for name in candidates.columns if name.endswith("_score")]
    columns = {}
    for name in names:
        out = np.zeros(len(candidates), np.float32)
        _standard(candidates.columns[name], candidates.indptr, out)
        columns[standard_column(name)] = out
    return candidates.with_columns(**columns)


@numba.njit(cache=True, nogil=True)
def _standard(score, indptr, out):  # type: ignore[no-untyped-def]
    for q in range(len(indptr) - 1):
        low, high = indptr[q], indptr[q + 1]
        total = 0.0
        for row in range(low, high):
            total += 0.0 if np.isnan(score[row]) else score[row]
        mean = total / max(high - low, 1)
        total = 0.0
        for row in range(low, high):
            total += ((0.0 if np.isnan(score[row]) else score[row]) - mean) ** 2
        spread = np.sqrt(total / max(high - low, 1))
        if spread > 1e-12:
            for row in range(low, high):
                apart = (0.0 if np.isnan(score[row]) else score[row]) - mean
                out[row] = apart / spread


def gather_sources(
    sources: Mapping[str, Source[Any]], limits: Mapping[str, int], requests: Requests
) -> dict[str, Candidates]:
    """Return each source's candidates, best first."""
    return {name: source.candidates(requests, limits[name]) for name, source in sources.items()}


def merge_candidates(
    found: Mapping[str, Candidates], known: BoolArray, limit: int, fusion: Fusion | None = None
) -> Candidates:
    """Return the union of the sources' candidates: the best ``limit`` per query by rough score.

    Args:
        found: per source its candidates, best first, with a ``score``.
        known: bool[candidates], whether a candidate is eligible; others are left out.
        limit: most candidates per query after the merge.
        fusion: the worth of each rank in each source; default reciprocal ranks.

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
    run_blocks(
        _count,
        queries,
        bounds,
        queries,
        len(parts),
        candidate,
        known,
        limit,
        size,
        scratch=(Scratch(len(known), np.bool_),),
    )
    start = np.concatenate(([0], np.cumsum(size)))
    kept, rough = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    scores = np.full((len(parts), start[-1]), np.nan, np.float32)
    ranks = np.full((len(parts), start[-1]), NO_RANK)
    run_blocks(
        _merge,
        queries,
        bounds,
        queries,
        len(parts),
        candidate,
        score.astype(np.float32),
        worth,
        known,
        start,
        kept,
        rough,
        scores,
        ranks,
        scratch=(Scratch(len(known), np.float32), Scratch(len(known), np.int64)),
    )
    columns: dict[str, np.ndarray] = {ROUGH: rough}
    for place, name in enumerate(names):
        columns[score_column(name)] = scores[place]
        columns[rank_column(name)] = ranks[place]
    return with_standard_scores(Candidates(start, kept, columns))


@numba.njit(cache=True, nogil=True)
def _count(block, blocks, bounds, queries, sources, candidate, known, limit, size, seen):  # type: ignore[no-untyped-def]
    """Number of distinct candidates of each query, at most the limit."""
    for q in range(block, queries, blocks):
        low, high = bounds[q * sources], bounds[(q + 1) * sources]
        count = 0
        for row in range(low, high):
            c = candidate[row]
            if not seen[c] and known[c]:
                seen[c] = True
                count += 1
        for row in range(low, high):
            seen[candidate[row]] = False
        size[q] = min(count, limit)


@numba.njit(cache=True, nogil=True)
def _merge(  # type: ignore[no-untyped-def]
    block,
    blocks,
    bounds,
    queries,
    sources,
    candidate,
    score,
    worth,
    known,
    start,
    kept,
    rough,
    scores,
    ranks,
    total,
    slot,
):
    """``slot`` is 1 + the row of each chosen candidate, else 0."""
    deepest = worth.shape[1] - 1
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
            slot[best[place]] = start[q] + place + 1
        for s in range(sources):
            begin = bounds[q * sources + s]
            for row in range(begin, bounds[q * sources + s + 1]):
                at = slot[candidate[row]] - 1
                if at >= 0:
                    scores[s, at] = score[row]
                    ranks[s, at] = min(row - begin + 1, 32766)
        for place in range(count):
            total[union[place]] = 0.0
            slot[union[place]] = 0


@numba.njit(cache=True, nogil=True)
def _best(total, union, n):  # type: ignore[no-untyped-def]
    """The n best of ``union`` (ascending), best first; ties by the smaller candidate."""
    value = np.empty(len(union), np.float32)
    for place in range(len(union)):
        value[place] = total[union[place]]
    order = np.argsort(-value, kind="mergesort")
    return union[order[:n]]
