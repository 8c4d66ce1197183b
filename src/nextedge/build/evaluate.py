"""Step: measure every source, heuristic and the full line on the evaluation window.

The graph is cut before the window; candidates, features and ranker see nothing of it. Full
ranking: every list is what would have been served, never a sample of negatives.
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
from nextedge.build.evaluation.impressions import impression_metrics
from nextedge.build.evaluation.ranked_lists import Lists, RankedQueries
from nextedge.build.rank import positives_of
from nextedge.build.step import SurfaceStep, checkpoints
from nextedge.build.time_split.window_pipeline import BATCH, WindowPipelines, batches
from nextedge.build.time_split.windows import History, cut
from nextedge.build.training_set.impressions import Impressions
from nextedge.build.training_set.joined_two_hop import with_found
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
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Snapshot, relation_of
from nextedge.graph.two_hop import pair_scores
from nextedge.progress import Progress
from nextedge.ranking.pipeline import RankingPipeline, declared_features
from nextedge.retrieval.fusion import FILE as FUSION
from nextedge.retrieval.fusion import Fusion
from nextedge.schema import ColumnKind
from nextedge.types import ROUGH

MAX_QUERIES = 20_000
_SINGLE = ("source", "baseline")


class EvaluateStep(SurfaceStep):
    """``evaluation.json`` of one surface."""

    name = "evaluate"
    version = 2

    def settings(self) -> Mapping[str, Any]:
        return {"surface": self.surface, "k": self.config.surface(self.surface).k}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        history = History.load(inputs["entities"])
        surface = self.config.surface(self.surface)
        relation = relation_of(surface)
        served = Scope(Snapshot.load(inputs["snapshot"], history.entities), relation)
        pairs, windows, method, why = cut(history, relation, self.config.split, served.graph)
        features = declared_features(served, surface, self.config.features.exclude)
        folder = checkpoints(output)
        saved = WindowPipelines(
            self.engine,
            folder,
            surface,
            history,
            pairs,
            features,
            trained_models(inputs["embed"], EVALUATION),
        ).line(windows[-1])
        rankers = inputs["rank"] / "ranker"
        saved = replace(saved, fusion=Fusion.load(rankers / FUSION))
        positives = positives_of(saved.open().scope, relation, pairs, windows[-1])
        (folder / "positives").mkdir(exist_ok=True)
        positives.save(folder / "positives")
        ranked = RankedQueries(saved, rankers, folder / "positives", surface.k)
        queries = np.flatnonzero(positives.degree)
        if len(queries) > MAX_QUERIES:
            queries = np.sort(np.random.default_rng(0).choice(queries, MAX_QUERIES, replace=False))
        tables = []
        for number, (found, group) in enumerate(with_found(self.engine, saved, queries)):
            blocks = (pa.table({"query": each.query}) for each in batches(group, 0, surface.k))
            function, keep = replace(ranked, line=found), folder / f"blocks-{number}"
            for table in self.engine.map_blocks(function, blocks, keep=keep):
                tables.append(table)
                done = min(len(tables) * BATCH, len(queries))
                progress(f"evaluate {self.surface}", done, len(queries))
        line = ranked.open()
        collected = _Collected(line, positives, surface.k, queries, Lists.of(tables))
        report = collected.report(self.surface, f"{method} split ({why})")
        if windows[-1].as_of is not None:
            shown = impression_metrics(line, Impressions.load(history, relation), surface.ranker)
            report = replace(report, shown=shown)
        text = json.dumps(report.to_json(), indent=1)
        (output / "evaluation.json").write_text(text)


@dataclass(frozen=True, eq=False)
class _Collected:
    """Ranked lists of every system over the evaluation queries."""

    line: RankingPipeline
    positives: Graph
    k: int
    query: np.ndarray
    lists: Lists

    def report(self, surface: str, split: str) -> EvaluationReport:
        """Everything that was measured."""
        query = self.query.astype(np.int32)
        protocol = Protocol(split, self.k, len(query))
        if not len(query):
            return EvaluationReport(surface, protocol, ())
        degree = self.line.scope.graph.degree[query]
        indptr, positive = self.positives.gather(query)
        joined = {}
        for name, top in self.lists.tops.items():
            joined[name] = rank_metrics(top.indptr, top.candidate, indptr, positive, self.k)
        systems = [self._system(name, metrics, degree, query) for name, metrics in joined.items()]
        main = f"ndcg@{self.k}"
        single = [n for n, kind in self.lists.kinds.items() if kind in _SINGLE and n != ROUGH]
        best = max(single, key=lambda name: np.nanmean(joined[name].ndcg))
        others = [best, ROUGH, *(n for n, kind in self.lists.kinds.items() if kind == "ranker")]
        comparisons = tuple(
            compare(
                ("full_line", joined["full_line"].named()[metric]),
                (other, joined[other].named()[metric]),
                metric,
            )
            for other in others
            for metric in (main, f"recall@{self.k}")
        )
        return EvaluationReport(
            surface, protocol, tuple(systems), self._recall(query, degree), comparisons
        )

    def _system(
        self, name: str, metrics: RankMetrics, degree: np.ndarray, query: np.ndarray
    ) -> SystemReport:
        report = system_report(name, self.lists.kinds[name], metrics, degree)
        scope = self.line.scope
        lists = self.lists.tops[name]
        catalogue = Catalogue(scope.candidate_degree, _categories(self.line))
        positives = self.positives.gather(query)
        beyond = measure_beyond_accuracy(
            (lists.indptr, lists.candidate), positives, catalogue, k=self.k
        )
        report = replace(report, beyond_accuracy=beyond)
        if name == "full_line" and self.lists.scores:
            measured = classification_metrics(
                np.concatenate(self.lists.labels), np.concatenate(self.lists.scores)
            )
            report = replace(report, classification=measured)
        return report

    def _recall(self, query: np.ndarray, degree: np.ndarray) -> CandidateRecall:
        indptr, positive = self.positives.gather(query)
        common = None
        if self.line.scope.relation.self_typed:
            graph = self.line.scope.graph
            counted = pair_scores(graph.indptr, graph.indices, query, indptr, positive)
            common = counted.common_neighbors.astype(np.int64)
        return measure_candidate_recall(
            {name: (part.indptr, part.candidate) for name, part in self.lists.found.items()},
            PositivePairs(indptr, positive, common, degree),
        )


def _categories(line: RankingPipeline) -> np.ndarray | None:
    attributes = line.scope.candidate_attributes
    names = attributes.of_kind(ColumnKind.CATEGORY)
    if not names:
        return None
    column = attributes.columns["category" if "category" in names else names[0]]
    return np.asarray(column.codes) if isinstance(column, Category) else None
