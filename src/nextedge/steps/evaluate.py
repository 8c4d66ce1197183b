"""Step: measure every source, heuristic and the full line on the evaluation window.

The graph is cut before the window; candidates, features and ranker see nothing of it. Full
ranking: every list is what would have been served, never a sample of negatives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.config import Config
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
    SystemKind,
    SystemReport,
    compare,
    system_report,
)
from nextedge.features.attributes import Category
from nextedge.graph.csr import Graph
from nextedge.graph.snapshot import Snapshot
from nextedge.graph.two_hop import pair_scores
from nextedge.models.learners import load_rankers
from nextedge.schema import ColumnKind
from nextedge.stages.fusion import FILE as FUSION
from nextedge.stages.fusion import Fusion
from nextedge.stages.line import SCORE, Line, declared_features
from nextedge.stages.merge import ROUGH, gather_sources, merge_candidates
from nextedge.stages.rerank import FOLDER as RERANKER
from nextedge.stages.rerank import Reranker
from nextedge.stages.source import Scope
from nextedge.steps.embed import EVALUATION, load_trained
from nextedge.steps.impressions import Impressions
from nextedge.steps.rank import batches, positives_of, window_line
from nextedge.steps.shown import evaluate_shown
from nextedge.steps.step import Progress, Step
from nextedge.steps.windows import History, cut, relation_of
from nextedge.types import Candidates, Requests

MAX_QUERIES = 20_000
_SINGLE = ("source", "baseline")
HEURISTICS = (
    "common_neighbor_count",
    "adamic_adar",
    "resource_allocation",
    "jaccard",
    "preferential_attachment",
)


class EvaluateStep(Step):
    """``evaluation.json`` of one surface."""

    name = "evaluate"
    version = 2

    def __init__(self, config: Config, surface: str) -> None:
        self.config = config
        self.surface = surface

    def settings(self) -> Mapping[str, Any]:
        return {"surface": self.surface, "k": self.config.surface(self.surface).k}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        history = History.load(inputs["entities"])
        surface = self.config.surface(self.surface)
        relation = relation_of(surface)
        served = Scope(Snapshot.load(inputs["snapshot"], history.entities), relation)
        pairs, windows, method, why = cut(history, relation, self.config.split, served.graph)
        features = declared_features(served, surface, self.config.features.exclude)
        line = window_line(
            self.config, self.surface, history, pairs, windows[-1], features,
            load_trained(inputs["embed"], EVALUATION),
        )  # fmt: skip
        positives = positives_of(line.scope, relation, pairs, windows[-1])
        line = replace(line, fusion=Fusion.load(inputs["rank"] / "ranker" / FUSION))
        rankers = load_rankers(inputs["rank"] / "ranker")
        if rankers is not None:
            reranker = Reranker.load(inputs["rank"] / "ranker" / RERANKER, line.scope, served=False)
            line = replace(line.with_ranker(*rankers), reranker=reranker)
        queries = np.flatnonzero(positives.degree)
        if len(queries) > MAX_QUERIES:
            queries = np.sort(np.random.default_rng(0).choice(queries, MAX_QUERIES, replace=False))
        collected = _Collected(line, positives, surface.k)
        for place, requests in enumerate(batches(queries, line.scope.snapshot.as_of, surface.k)):
            progress(f"evaluate {self.surface}", place * len(requests), len(queries))
            collected.add(requests)
        report = collected.report(self.surface, f"{method} split ({why})")
        if windows[-1].as_of is not None:
            shown = evaluate_shown(line, Impressions.load(history, relation), surface.ranker)
            report = replace(report, shown=shown)
        text = json.dumps(report.to_json(), indent=1)
        (output / "evaluation.json").write_text(text)


class _Collected:
    """Ranked lists of every system over the evaluation queries, batch by batch."""

    def __init__(self, line: Line, positives: Graph, k: int) -> None:
        self.line = line
        self.positives = positives
        self.k = k
        self.queries: list[np.ndarray] = []
        self.kinds: dict[str, SystemKind] = {}
        self.lists: dict[str, list[Candidates]] = {}
        self.found: dict[str, list[Candidates]] = {}
        self.labels: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []

    def add(self, requests: Requests) -> None:
        """Rank one batch by every system."""
        line = self.line
        found = gather_sources(line.sources, line.limits, requests)
        merged = merge_candidates(found, line.scope.known, line.size, line.fusion)
        self.queries.append(requests.query)
        known = line.scope.known
        for name, candidates in found.items():
            usable = Candidates(candidates.indptr, candidates.candidate).keep(
                known[candidates.candidate]
            )
            self.found.setdefault(name, []).append(usable)
            self._measure(name, "source", usable, requests)
        matrix, names = line.matrix(requests, merged), line.features.names
        for name in HEURISTICS:
            if name in names:
                score = np.nan_to_num(matrix[:, names.index(name)])
                self._measure(
                    name, "baseline", merged.with_columns(score=score).sorted_by(SCORE), requests
                )
        self._measure(ROUGH, "baseline", merged, requests)
        score = line.score(requests, merged, matrix)
        if line.ranker is not None:
            self.labels.append(
                self.positives.contains(requests.query[merged.row_query], merged.candidate)
            )
            self.scores.append(score)
        ranked = merged.with_columns(score=score).sorted_by(SCORE)
        if line.reranker is not None:
            self._measure("ranker", "ranker", ranked, requests)
            ranked = line.reranker.rerank(requests, ranked, SCORE)
        self._measure("full_line", "full_line", ranked, requests)

    def _measure(self, name: str, kind: SystemKind, ranked: Candidates, requests: Requests) -> None:
        self.kinds[name] = kind
        top = Candidates(ranked.indptr, ranked.candidate).head(self.k)
        self.lists.setdefault(name, []).append(top)

    def report(self, surface: str, split: str) -> EvaluationReport:
        """Everything that was measured."""
        query = np.concatenate(self.queries) if self.queries else np.zeros(0, np.int32)
        protocol = Protocol(split, self.k, len(query))
        if not len(query):
            return EvaluationReport(surface, protocol, ())
        degree = self.line.scope.graph.degree[query]
        indptr, positive = self.positives.gather(query)
        joined = {}
        for name, parts in self.lists.items():
            top = _joined(parts)
            joined[name] = rank_metrics(top.indptr, top.candidate, indptr, positive, self.k)
        systems = [self._system(name, metrics, degree, query) for name, metrics in joined.items()]
        main = f"ndcg@{self.k}"
        single = [n for n, kind in self.kinds.items() if kind in _SINGLE and n != ROUGH]
        best = max(single, key=lambda name: np.nanmean(joined[name].ndcg))
        others = [best, ROUGH, *(n for n, kind in self.kinds.items() if kind == "ranker")]
        comparisons = tuple(
            compare(("full_line", joined["full_line"].named()[metric]),
                    (other, joined[other].named()[metric]), metric)
            for other in others for metric in (main, f"recall@{self.k}")
        )  # fmt: skip
        return EvaluationReport(
            surface, protocol, tuple(systems), self._recall(query, degree), comparisons
        )

    def _system(
        self, name: str, metrics: RankMetrics, degree: np.ndarray, query: np.ndarray
    ) -> SystemReport:
        report = system_report(name, self.kinds[name], metrics, degree)
        scope = self.line.scope
        lists = _joined(self.lists[name])
        catalogue = Catalogue(scope.candidate_degree, _categories(self.line))
        positives = self.positives.gather(query)
        beyond = measure_beyond_accuracy(
            (lists.indptr, lists.candidate), positives, catalogue, k=self.k
        )
        report = replace(report, beyond_accuracy=beyond)
        if name == "full_line" and self.scores:
            measured = classification_metrics(
                np.concatenate(self.labels), np.concatenate(self.scores)
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
        lists = {name: _joined(parts) for name, parts in self.found.items()}
        return measure_candidate_recall(
            {name: (part.indptr, part.candidate) for name, part in lists.items()},
            PositivePairs(indptr, positive, common, degree),
        )


def _joined(parts: list[Candidates]) -> Candidates:
    sizes = np.concatenate([np.diff(part.indptr) for part in parts])
    return Candidates(
        np.concatenate(([0], np.cumsum(sizes))), np.concatenate([part.candidate for part in parts])
    )


def _categories(line: Line) -> np.ndarray | None:
    attributes = line.scope.candidate_attributes
    names = attributes.of_kind(ColumnKind.CATEGORY)
    if not names:
        return None
    column = attributes.columns["category" if "category" in names else names[0]]
    return np.asarray(column.codes) if isinstance(column, Category) else None
