"""Step 9: measure every source, every heuristic and the whole pipeline on the evaluation window.

Inputs: the records, the snapshot, the windows, the trained models, and the rankers. Output:
``evaluation.json``.

The graph is cut before the window, so that candidates, features and rankers see nothing of it.
Full ranking: every list is the one that a user would get, never a sample of negatives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nextedge.build.embed import EVALUATION, trained_models
from nextedge.build.evaluation.impression_metrics import impression_metrics
from nextedge.build.evaluation.ranked_lists import RankedLists, RankQueries
from nextedge.build.step import SurfaceStep, checkpoints
from nextedge.build.time_split.surface_history import SurfaceHistory
from nextedge.build.time_split.window_pipeline import BATCH, WindowPipelineFactory, batches
from nextedge.build.training_set.impression_outcomes import Impressions
from nextedge.build.training_set.new_edges import positives_of
from nextedge.build.training_set.two_hop_join import with_joined_two_hop
from nextedge.evaluation.beyond_accuracy import Catalogue, measure_beyond_accuracy
from nextedge.evaluation.candidate_recall import (
    CandidateRecall,
    PositivePairs,
    measure_candidate_recall,
)
from nextedge.evaluation.classification import classification_metrics
from nextedge.evaluation.ranking import RankMetrics, rank_metrics
from nextedge.evaluation.report import (
    EvaluationReport,
    Protocol,
    SystemReport,
    compare,
    system_report,
)
from nextedge.graph.attributes import Category
from nextedge.graph.csr import Graph
from nextedge.graph.two_hop import pair_scores
from nextedge.progress import Progress
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.retrieval.fusion import FILE as FUSION
from nextedge.retrieval.fusion import Fusion
from nextedge.schema import ColumnKind
from nextedge.types import ROUGH, IndexArray

MAX_QUERIES = 20_000
_FULL = "full_line"


class EvaluateStep(SurfaceStep):
    """Ranks for the queries of the evaluation window, and measures the lists."""

    name = "evaluate"
    version = 2

    def settings(self) -> Mapping[str, Any]:
        return {"surface": self.surface, "k": self.config.surface(self.surface).k}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        surface, folder = self.config.surface(self.surface), checkpoints(output)
        history = SurfaceHistory.load(inputs, surface)
        split, window = history.split, history.split.evaluation
        pipelines = WindowPipelineFactory(
            engine=self.engine,
            folder=folder,
            surface=surface,
            history=history,
            trained=trained_models(inputs["embed"], EVALUATION),
            exclude=self.config.features.exclude,
        )
        fusion = Fusion.load(inputs["rank"] / "ranker" / FUSION)
        pipeline = replace(pipelines.pipeline(window), fusion=fusion)
        positives = positives_of(pipeline.open().scope, history.pairs, window)
        (folder / "positives").mkdir(exist_ok=True)  # a stopped build may have left it
        # As files, because other processes may rank the blocks.
        positives.save(folder / "positives")
        function = RankQueries(pipeline, inputs["rank"] / "ranker", folder / "positives", surface.k)
        queries = np.flatnonzero(positives.degree)
        if len(queries) > MAX_QUERIES:
            # Seeded, so that two builds are measured on the same queries.
            queries = np.sort(np.random.default_rng(0).choice(queries, MAX_QUERIES, replace=False))
        tables = []
        groups = with_joined_two_hop(self.engine, pipeline, queries)
        for number, (joined, group) in enumerate(groups):
            blocks = (pa.table({"query": batch.query}) for batch in batches(group, 0, surface.k))
            ranked = self.engine.map_blocks(
                replace(function, pipeline=joined), blocks, keep=folder / f"blocks-{number}"
            )
            for table in ranked:
                tables.append(table)
                done = min(len(tables) * BATCH, len(queries))
                progress(f"evaluate {self.surface}", done, len(queries))
        opened, lists = function.open(), RankedLists.of(tables)
        evaluation = _Evaluation(opened, positives, surface.k, queries.astype(np.int32), lists)
        report = evaluation.report(self.surface, f"{split.method} split ({split.reason})")
        # Without times nothing tells which impressions came after the graph.
        if window.as_of is not None:
            impressions = Impressions.load(history.history, history.relation)
            report = replace(report, shown=impression_metrics(opened, impressions, surface.ranker))
        (output / "evaluation.json").write_text(json.dumps(report.to_json(), indent=1))


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """The ranked lists of every system, and what they are measured against.

    Attributes:
        positives: the new edges of the window.
        query: int32[Q].
    """

    pipeline: RankingPipeline
    positives: Graph
    k: int
    query: IndexArray
    lists: RankedLists

    def report(self, surface: str, split: str) -> EvaluationReport:
        """All measurements of all systems."""
        protocol = Protocol(split, self.k, len(self.query))
        if not len(self.query):
            return EvaluationReport(surface, protocol, ())
        positives = self.positives.gather(self.query)
        metrics = {
            name: rank_metrics(top.indptr, top.candidate, *positives, self.k)
            for name, top in self.lists.tops.items()
        }
        kinds = self.lists.kinds
        single = [n for n, kind in kinds.items() if kind in ("source", "baseline") and n != ROUGH]
        best = max(single, key=lambda name: np.nanmean(metrics[name].ndcg))
        others = [best, ROUGH, *(name for name, kind in kinds.items() if kind == "ranker")]
        values = {name: metrics[name].named() for name in (_FULL, *others)}
        comparisons = tuple(
            compare((_FULL, values[_FULL][metric]), (other, values[other][metric]), metric)
            for other in others
            for metric in (f"ndcg@{self.k}", f"recall@{self.k}")
        )
        systems = tuple(self._system(name, found) for name, found in metrics.items())
        return EvaluationReport(surface, protocol, systems, self._recall(), comparisons)

    def _system(self, name: str, metrics: RankMetrics) -> SystemReport:
        scope, top = self.pipeline.scope, self.lists.tops[name]
        beyond = measure_beyond_accuracy(
            (top.indptr, top.candidate),
            self.positives.gather(self.query),
            Catalogue(scope.candidate_degree, _categories(self.pipeline)),
            k=self.k,
        )
        degree = scope.graph.degree[self.query]
        report = system_report(name, self.lists.kinds[name], metrics, degree)
        report = replace(report, beyond_accuracy=beyond)
        if name == _FULL and self.lists.scores:
            labels, scores = np.concatenate(self.lists.labels), np.concatenate(self.lists.scores)
            report = replace(report, classification=classification_metrics(labels, scores))
        return report

    def _recall(self) -> CandidateRecall:
        scope = self.pipeline.scope
        indptr, positive = self.positives.gather(self.query)
        common = None
        if scope.relation.self_typed:
            graph = scope.graph
            pairs = pair_scores(graph.indptr, graph.indices, self.query, indptr, positive)
            common = pairs.common_neighbors.astype(np.int64)
        return measure_candidate_recall(
            {name: (part.indptr, part.candidate) for name, part in self.lists.found.items()},
            PositivePairs(indptr, positive, common, scope.graph.degree[self.query]),
        )


def _categories(pipeline: RankingPipeline) -> np.ndarray | None:
    attributes = pipeline.scope.candidate_attributes
    names = attributes.of_kind(ColumnKind.CATEGORY)
    if not names:
        return None
    column = attributes.columns["category" if "category" in names else names[0]]
    return np.asarray(column.codes) if isinstance(column, Category) else None
