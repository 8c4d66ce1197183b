"""Ranked lists of every system over evaluation queries: sources, heuristics, and the full line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from nextedge.build.time_split.window_pipeline import WindowPipeline
from nextedge.evaluation.report import SystemKind
from nextedge.graph.csr import Graph
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.models.rankers.learners import load_rankers
from nextedge.models.rankers.ranker import CalibratedRanker
from nextedge.ranking.pipeline import SCORE, RankingPipeline
from nextedge.ranking.reranker import FOLDER as RERANKER
from nextedge.ranking.reranker import Reranker
from nextedge.retrieval.merge import gather_sources, merge_candidates
from nextedge.types import ROUGH, Candidates, FloatArray, Requests

HEURISTICS = (
    "common_neighbor_count",
    "adamic_adar",
    "resource_allocation",
    "jaccard",
    "preferential_attachment",
)
_FOUND, _LABELS = "found", "labels"
_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "kind": pa.string(),
        "indptr": pa.list_(pa.int64()),
        "candidate": pa.list_(pa.int32()),
        "score": pa.list_(pa.float32()),
    }
)


@dataclass(frozen=True)
class RankedQueries:
    """The block function: queries in, ranked lists of every system out.

    Attributes:
        rankers: folder of the rankers, or None where there are none.
        positives: folder of a graph, the edges to be found.
        k: length of the lists.
    """

    line: WindowPipeline
    rankers: Path
    positives: Path
    k: int

    def __call__(self, block: pa.Table) -> pa.Table:
        """One row a system; ``labels`` holds the places of the new edges, and the scores of all."""
        line, positives = self.open(), Graph.load(self.positives)
        requests = Requests(block["query"].to_numpy(), line.scope.snapshot.as_of, self.k)
        rows = _Rows(self.k)
        found = gather_sources(line.sources, line.limits, requests)
        merged = merge_candidates(found, line.scope.recommendable, line.size, line.fusion)
        for name, candidates in found.items():
            bare = Candidates(candidates.indptr, candidates.candidate)
            usable = bare.keep(line.scope.recommendable[candidates.candidate])
            rows.add(name, _FOUND, usable)
            rows.head(name, "source", usable)
        matrix, names = line.matrix(requests, merged), line.features.names
        for name in (each for each in HEURISTICS if each in names):
            score = np.nan_to_num(matrix[:, names.index(name)])
            rows.head(name, "baseline", merged.with_columns(score=score).sorted_by(SCORE))
        rows.head(ROUGH, "baseline", merged)
        score = line.score(requests, merged, matrix)
        if line.ranker is not None:
            new = positives.contains(requests.query[merged.row_query], merged.candidate)
            rows.add(
                "", _LABELS, Candidates(merged.indptr, np.flatnonzero(new).astype(np.int32)), score
            )
        ranked = merged.with_columns(score=score).sorted_by(SCORE)
        if line.reranker is not None:
            rows.head("ranker", "ranker", ranked)
            ranked = line.reranker.rerank(requests, ranked, SCORE)
        rows.head("full_line", "full_line", ranked)
        return rows.table()

    def open(self) -> RankingPipeline:
        """The line with its rankers."""
        line = self.line.open()
        rankers = _rankers(line.scope, self.rankers)
        if rankers is None:
            return line
        reranker = Reranker.load(self.rankers / RERANKER, line.scope, served=False)
        return replace(line.with_ranker(*rankers), reranker=reranker)


@cached_per_snapshot
def _rankers(_: Scope, folder: Path) -> tuple[CalibratedRanker, CalibratedRanker | None] | None:
    """The rankers of a folder, loaded once for the blocks of one window."""
    return load_rankers(folder)


class _Rows:
    """The rows of one block's table."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.rows: list[dict[str, object]] = []

    def add(self, name: str, kind: str, lists: Candidates, score: FloatArray | None = None) -> None:
        """Whole lists."""
        self.rows.append(
            {
                "name": name,
                "kind": kind,
                "indptr": lists.indptr,
                "candidate": lists.candidate,
                "score": np.zeros(0, np.float32) if score is None else score,
            }
        )

    def head(self, name: str, kind: SystemKind, ranked: Candidates) -> None:
        """The first k of each list."""
        self.add(name, kind, Candidates(ranked.indptr, ranked.candidate).head(self.k))

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self.rows, _SCHEMA)


@dataclass
class Lists:
    """The lists of all blocks, by system.

    Attributes:
        kinds: what each system is.
        tops: its first k.
        found: by source all that it found.
        labels, scores: of every candidate that was ranked.
    """

    kinds: dict[str, SystemKind] = field(default_factory=dict)
    tops: dict[str, Candidates] = field(default_factory=dict)
    found: dict[str, Candidates] = field(default_factory=dict)
    labels: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, tables: Iterable[pa.Table]) -> Lists:
        """Join the blocks' tables."""
        lists = cls()
        tops: dict[str, list[Candidates]] = {}
        found: dict[str, list[Candidates]] = {}
        for name, kind, part, score in (row for table in tables for row in _read(table)):
            if kind == _LABELS:
                label = np.zeros(len(score), bool)
                label[part.candidate] = True
                lists.labels.append(label)
                lists.scores.append(score)
            elif kind == _FOUND:
                found.setdefault(name, []).append(part)
            else:
                lists.kinds[name] = kind  # type: ignore[assignment]
                tops.setdefault(name, []).append(part)
        lists.tops = {name: _joined(parts) for name, parts in tops.items()}
        lists.found = {name: _joined(parts) for name, parts in found.items()}
        return lists


def _read(table: pa.Table) -> Iterator[tuple[str, str, Candidates, np.ndarray]]:
    for row in range(len(table)):
        indptr, candidate, score = (
            table[name][row].values.to_numpy(zero_copy_only=False)
            for name in ("indptr", "candidate", "score")
        )
        name, kind = table["name"][row].as_py(), table["kind"][row].as_py()
        yield name, kind, Candidates(indptr, candidate), score


def _joined(parts: list[Candidates]) -> Candidates:
    sizes = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.concatenate(([0], np.cumsum(sizes)))
    return Candidates(indptr, np.concatenate([part.candidate for part in parts]))
