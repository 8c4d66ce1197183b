"""Merge: the union of all sources' candidates, with the score and the rank in every source.

The rough score is ``rough(c) = Σ_s worth_s(rank_s(c))`` (see ``fusion``); the best ``limit``
candidates go on to the ranker.
"""

from __future__ import annotations

from collections.abc import Mapping

import numba
import numpy as np

from nextedge.graph.threads import Scratch, run_blocks
from nextedge.retrieval.fusion import Fusion
from nextedge.types import (
    NO_RANK,
    ROUGH,
    BoolArray,
    Candidates,
    rank_column,
    score_column,
    standard_column,
)


def with_standard_scores(candidates: Candidates) -> Candidates:
    """Add each score in standard deviations from its mean over the query's candidates.

    Absent scores count as 0; a query with equal scores gets 0. O(R) a column.
    """
    # The scale of a score differs between queries, for example with the length of the history,
    # and trees cannot correct that.
    columns = {
        standard_column(name): _standard(values, candidates.indptr)
        for name, values in candidates.columns.items()
        if name.endswith("_score")
    }
    return candidates.with_columns(**columns)


@numba.njit(cache=True, nogil=True)
def _standard(score, indptr):  # type: ignore[no-untyped-def]
    out = np.zeros(len(score), np.float32)
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
        # Equal scores: the division would blow rounding up to whole deviations.
        if spread > 1e-12:
            for row in range(low, high):
                apart = (0.0 if np.isnan(score[row]) else score[row]) - mean
                out[row] = apart / spread
    return out


def merge_candidates(
    retrieved: Mapping[str, Candidates],
    allowed: BoolArray,
    limit: int,
    fusion: Fusion | None = None,
) -> Candidates:
    """Return the union of the sources' candidates: the best ``limit`` of each query by rough score.

    Args:
        retrieved: source → its candidates, best first, with a ``score``.
        allowed: bool[candidates], whether a candidate is eligible; the merge drops the others.
        limit: most candidates of each query after the merge.
        fusion: the worth of each rank in each source; default reciprocal ranks.

    Returns:
        Candidates ordered by rough score (ties by the smaller candidate), with columns
        ``rough_score``, ``<source>_score`` (NaN where absent), ``<source>_rank``, and each
        score's ``…_standard``.
    """
    names, parts = list(retrieved), list(retrieved.values())
    queries = parts[0].queries
    sizes = np.stack([np.diff(part.indptr) for part in parts])
    # All lists in one array, the lists of a query side by side, so that a thread reads one range.
    bounds = np.concatenate(([0], np.cumsum(sizes.T.ravel())))
    row = np.concatenate([part.row_query for part in parts]).astype(np.int64)
    source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(row * len(parts) + source, kind="stable")  # keeps each source's ranks
    candidate = np.concatenate([part.candidate for part in parts])[order]
    score = np.concatenate([part.columns["score"] for part in parts])[order]
    worth = (fusion or Fusion()).table(names)
    size = np.zeros(queries, np.int64)
    lists = bounds, candidate, score.astype(np.float32)
    seen = (Scratch(len(allowed), np.bool_),)
    # Counted first: each thread must know where the rows of its queries start.
    run_blocks(_count, queries, lists, len(parts), allowed, limit, size, scratch=seen)
    start = np.concatenate(([0], np.cumsum(size)))
    best, rough = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    scores = np.full((len(parts), start[-1]), np.nan, np.float32)
    ranks = np.full((len(parts), start[-1]), NO_RANK)
    merged = start, best, rough, scores, ranks
    totals = Scratch(len(allowed), np.float32), Scratch(len(allowed), np.int64)
    run_blocks(_merge, queries, lists, worth, allowed, merged, scratch=totals)
    columns: dict[str, np.ndarray] = {ROUGH: rough}
    for at, name in enumerate(names):
        columns[score_column(name)] = scores[at]
        columns[rank_column(name)] = ranks[at]
    return with_standard_scores(Candidates(start, best, columns))


@numba.njit(cache=True, nogil=True)
def _count(block, blocks, lists, sources, allowed, limit, size, seen):  # type: ignore[no-untyped-def]
    """Number of distinct candidates of each query, at most the limit."""
    bounds, candidate, _ = lists
    for q in range(block, len(size), blocks):
        low, high = bounds[q * sources], bounds[(q + 1) * sources]
        count = 0
        for row in range(low, high):
            c = candidate[row]
            if not seen[c] and allowed[c]:
                seen[c] = True
                count += 1
        # Reset entry by entry: the array is as long as all candidates.
        for row in range(low, high):
            seen[candidate[row]] = False
        size[q] = min(count, limit)


@numba.njit(cache=True, nogil=True)
def _merge(block, blocks, lists, worth, allowed, merged, total, slot):  # type: ignore[no-untyped-def]
    """``slot`` is 1 + the row of each chosen candidate, else 0."""
    bounds, candidate, score = lists
    start, best, rough, scores, ranks = merged
    sources, deepest = len(worth), worth.shape[1] - 1
    for q in range(block, len(start) - 1, blocks):
        low, high = bounds[q * sources], bounds[(q + 1) * sources]
        union = np.empty(high - low, np.int32)
        count = 0
        for s in range(sources):
            begin = bounds[q * sources + s]
            for row in range(begin, bounds[q * sources + s + 1]):
                c = candidate[row]
                if not allowed[c]:
                    continue
                # Every worth is positive, so that 0 marks a candidate not met before.
                if total[c] == 0.0:
                    union[count] = c
                    count += 1
                total[c] += worth[s, min(row - begin, deepest)]
        # Ascending, so that a stable sort gives ties to the smaller candidate.
        head = _best(total, np.sort(union[:count]), start[q + 1] - start[q])
        for rank in range(len(head)):
            best[start[q] + rank] = head[rank]
            rough[start[q] + rank] = total[head[rank]]
            slot[head[rank]] = start[q] + rank + 1
        for s in range(sources):
            begin = bounds[q * sources + s]
            for row in range(begin, bounds[q * sources + s + 1]):
                at = slot[candidate[row]] - 1
                if at >= 0:
                    scores[s, at] = score[row]
                    ranks[s, at] = min(row - begin + 1, 32766)  # int16; its maximum is NO_RANK
        for position in range(count):
            total[union[position]] = 0.0
            slot[union[position]] = 0


@numba.njit(cache=True, nogil=True)
def _best(total, union, n):  # type: ignore[no-untyped-def]
    """The n best of ``union`` (ascending), best first; ties by the smaller candidate."""
    value = np.empty(len(union), np.float32)
    for position in range(len(union)):
        value[position] = total[union[position]]
    order = np.argsort(-value, kind="mergesort")
    return union[order[:n]]
