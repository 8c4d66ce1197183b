"""Ranked lists of every system over evaluation queries: sources, heuristics, the whole pipeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from nextedge.build.time_split.window_pipeline import WindowPipeline
from nextedge.engines.blocks import OpenedFiles
from nextedge.evaluation.report import SystemKind
from nextedge.graph.csr import Graph
from nextedge.models.rankers.learners import load_rankers
from nextedge.models.rankers.ranker import CalibratedRanker
from nextedge.ranking.pipeline import RankingPipeline, ordered
from nextedge.ranking.reranker import FOLDER as RERANKER
from nextedge.ranking.reranker import Reranker
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
Rankers = tuple[CalibratedRanker, CalibratedRanker | None]


@dataclass(frozen=True)
class RankQueries:
    """The block function: queries in, ranked lists of every system out.

    Attributes:
        rankers: folder of the rankers, which may be empty.
        positives: folder of a graph, the window's new edges.
        k: length of the lists.
    """

    opened: ClassVar[OpenedFiles[Path, Rankers | None]] = OpenedFiles(1)
    pipeline: WindowPipeline
    rankers: Path
    positives: Path
    k: int

    def __call__(self, block: pa.Table) -> pa.Table:
        """One row a system; ``labels`` has the rows of the new edges, and the scores of all rows."""
        pipeline, positives = self.open(), Graph.load(self.positives)
        requests = Requests(block["query"].to_numpy(), pipeline.scope.snapshot.as_of, self.k)
        rows = _Rows(self.k)
        found = pipeline.search(requests)
        for name, candidates in found.items():
            # Without its columns, which the filter would copy.
            bare = Candidates(candidates.indptr, candidates.candidate)
            # The merge drops the others: no source is to be judged by them.
            usable = bare.keep(pipeline.scope.recommendable[candidates.candidate])
            rows.add(name, _FOUND, usable)
            rows.head(name, "source", usable)
        merged = pipeline.merge(requests, found)
        matrix, names = pipeline.matrix(requests, merged), pipeline.features.names
        for name in (heuristic for heuristic in HEURISTICS if heuristic in names):
            values = np.nan_to_num(matrix[:, names.index(name)])
            rows.head(name, "baseline", ordered(merged, values))
        rows.head(ROUGH, "baseline", merged)
        score = pipeline.score(requests, merged, matrix)
        if pipeline.ranker is not None:
            new = positives.contains(requests.query[merged.row_query], merged.candidate)
            labels = Candidates(merged.indptr, np.flatnonzero(new).astype(np.int32))
            rows.add("", _LABELS, labels, score)
        ranked = ordered(merged, score)
        if pipeline.reranker is not None:  # else it is the full line
            rows.head("ranker", "ranker", ranked)
        rows.head("full_line", "full_line", pipeline.rerank(requests, ranked))
        return rows.table()

    def open(self) -> RankingPipeline:
        """The pipeline with its rankers."""
        pipeline = self.pipeline.open()
        rankers = self.opened.get(self.rankers, lambda: load_rankers(self.rankers))
        if rankers is None:
            return pipeline
        # The saved vectors are of the served graph, which holds the window's edges.
        reranker = Reranker.load(self.rankers / RERANKER, pipeline.scope, served=False)
        return replace(pipeline.with_ranker(*rankers), reranker=reranker)


class _Rows:
    """The rows of one block's table."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.rows: list[dict[str, object]] = []

    def add(self, name: str, kind: str, lists: Candidates, score: FloatArray | None = None) -> None:
        """Add whole lists."""
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
        """Add the first k of each list."""
        self.add(name, kind, Candidates(ranked.indptr, ranked.candidate).head(self.k))

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self.rows, _SCHEMA)


@dataclass
class RankedLists:
    """The lists of all blocks, by system.

    Attributes:
        kinds: kind of each system.
        tops: first k candidates of each query.
        found: all candidates of each source.
        labels, scores: of every ranked candidate.
    """

    kinds: dict[str, SystemKind] = field(default_factory=dict)
    tops: dict[str, Candidates] = field(default_factory=dict)
    found: dict[str, Candidates] = field(default_factory=dict)
    labels: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, tables: Iterable[pa.Table]) -> RankedLists:
        """Join the tables of blocks."""
        lists = cls()
        tops: dict[str, list[Candidates]] = defaultdict(list)
        found: dict[str, list[Candidates]] = defaultdict(list)
        for name, kind, part, score in (row for table in tables for row in _read(table)):
            if kind == _LABELS:
                label = np.zeros(len(score), bool)
                label[part.candidate] = True
                lists.labels.append(label)
                lists.scores.append(score)
            elif kind == _FOUND:
                found[name].append(part)
            else:
                lists.kinds[name] = kind  # type: ignore[assignment]
                tops[name].append(part)
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
