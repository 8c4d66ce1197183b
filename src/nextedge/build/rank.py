"""Step: train the ranker on the label windows and choose what is served.

Models are fitted on windows before the one they are judged on; all windows but the first
choose the model (``auto``) and the number of trees, the last calibrates. What was chosen is
then fitted again on all. Candidates and features of
every window come from its own graph, in which the window's labels are absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.build.embed import COMMON, trained_models
from nextedge.build.step import SurfaceStep, checkpoints
from nextedge.build.time_split.pairs import Pairs
from nextedge.build.time_split.split import LABEL_WINDOWS, Method, Window
from nextedge.build.time_split.window_pipeline import WindowPipeline, WindowPipelines, batches
from nextedge.build.time_split.windows import EdgeRecords, History, cut
from nextedge.build.training_set.impressions import action_worth, shown_between
from nextedge.build.training_set.label_rows import label_rows
from nextedge.build.training_set.reranker import LabelWindow, train_reranker
from nextedge.config import RankerConfig
from nextedge.graph.csr import Graph, build_graph, mirrored
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Snapshot, relation_of
from nextedge.models.rankers.gbdt import LabelledRows
from nextedge.models.rankers.learners import COLD_START
from nextedge.models.rankers.position_bias import PositionBias
from nextedge.models.rankers.training import train
from nextedge.progress import Progress
from nextedge.ranking.pipeline import RankingPipeline, declared_features
from nextedge.ranking.reranker import FOLDER as RERANKER
from nextedge.ranking.reranker import Reranker
from nextedge.retrieval.fusion import FILE as FUSION
from nextedge.retrieval.fusion import Fusion, FusionLearner
from nextedge.retrieval.merge import gather_sources
from nextedge.types import FloatArray, Relation

FUSION_QUERIES = 1_000
COLD_SHARE = 0.1
"""Share of the users whose edges are taken out, to learn how to rank for those without."""
COLD_PARTS = 3


@dataclass(frozen=True, eq=False)
class LabelledWindows:
    """What the label windows teach.

    Attributes:
        lines: makes the lines of further windows.
        window: the last label window.
        method, why: how history was cut.
        parts: labelled rows of every label window, in order.
        latest: all windows but the first, for the re-ranker; none where it is off.
        bias: how often positions are looked at, by the last window.
    """

    lines: WindowPipelines
    window: Window
    method: Method
    why: str
    fusion: Fusion
    parts: list[LabelledRows]
    latest: list[LabelWindow]
    bias: PositionBias | None


class RankStep(SurfaceStep):
    """``ranker/`` of one surface, with ``training.json`` saying what was compared."""

    name = "rank"
    version = 7

    def settings(self) -> Mapping[str, Any]:
        return {
            "surface": self.config.surface(self.surface).model_dump(exclude={"policy", "k"}),
            "split": self.config.split.model_dump(),
            "exclude": self.config.features.exclude,
        }

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        surface = self.config.surface(self.surface)
        windows = checkpoints(output)
        learned = self.labelled(inputs, windows, progress)
        progress(f"rank {self.surface}: training", LABEL_WINDOWS, LABEL_WINDOWS + 1)
        ranker, compared = train(learned.parts, learned.lines.features.names, surface.ranker)
        folder = output / "ranker"
        folder.mkdir()
        learned.fusion.save(folder / FUSION)
        about: dict[str, Any] = {
            "split": learned.method,
            "split_reason": learned.why,
            **compared,
            "examination": None if learned.bias is None else learned.bias.to_json(),
        }
        if ranker is not None:
            ranker.save(folder)
            if surface.reranker.enabled:
                progress(f"rank {self.surface}: re-ranker", LABEL_WINDOWS, LABEL_WINDOWS + 1)
                model, about["reranker"] = train_reranker(
                    learned.latest, ranker, int(compared["trees"]), surface
                )
                if model is not None and about["reranker"]["served"]:
                    served = Scope(
                        Snapshot.load(inputs["snapshot"], learned.lines.history.entities),
                        relation_of(surface),
                    )
                    Reranker(served, model).save(folder / RERANKER, served)
            progress(f"rank {self.surface}: cold start", LABEL_WINDOWS, LABEL_WINDOWS + 1)
            parts = self._cold_start(learned)
            settings = surface.ranker.model_copy(update={"model": "auto"})
            cold, about["cold_start"] = train(parts, learned.lines.features.names, settings)
            if cold is not None:
                (folder / COLD_START).mkdir()
                cold.save(folder / COLD_START)
        (output / "training.json").write_text(json.dumps(about, indent=1))

    def labelled(
        self, inputs: Mapping[str, Path], folder: Path, progress: Progress
    ) -> LabelledWindows:
        """Candidates, features and labels of every label window; what is done lies in ``folder``."""
        history = History.load(inputs["entities"])
        surface = self.config.surface(self.surface)
        relation = relation_of(surface)
        served = Scope(Snapshot.load(inputs["snapshot"], history.entities), relation)
        pairs, windows, method, why = cut(history, relation, self.config.split, served.graph)
        features = declared_features(served, surface, self.config.features.exclude)
        lines = WindowPipelines(
            self.engine,
            folder,
            surface,
            history,
            pairs,
            features,
            trained_models(inputs["embed"], COMMON),
        )
        parts: list[LabelledRows] = []
        latest: list[LabelWindow] = []
        fusion, shown = Fusion(), None
        saved: WindowPipeline | None = None
        for place, window in enumerate(windows[:-1]):
            progress(f"rank {self.surface}: candidates of {window.name}", place, LABEL_WINDOWS + 1)
            end, kept = windows[place + 1].as_of, folder / f"{window.name}-rows.npz"
            if kept.exists() and not surface.reranker.enabled:  # by a build that was stopped
                parts.append(LabelledRows.load(kept))
                fusion = Fusion.load(folder / FUSION)
                shown = shown_between(history, relation, window.as_of, end, surface.ranker)
                continue
            if saved is None or window.graph is not windows[place - 1].graph:
                saved = lines.line(window)
            line = saved.open()
            worth = edge_worth(history.of(relation), pairs, end, surface.ranker)
            positives = positives_of(line.scope, relation, pairs, window, worth)
            if place == 0:
                fusion = learn_fusion(line, positives, surface.ranker)
                fusion.save(folder / FUSION)
            saved = replace(saved, fusion=fusion)
            line = saved.open()
            if surface.reranker.enabled and place > 0:
                latest.append(LabelWindow(line, positives, tuple(parts)))
            shown = shown_between(history, relation, window.as_of, end, surface.ranker)
            parts.append(label_rows(self.engine, saved, positives, surface.ranker, place, shown))
            parts[-1].save(kept)
            if not surface.reranker.enabled and window.graph is not windows[place + 1].graph:
                del line
                saved.remove()
                saved = None
        bias = None if shown is None else shown.bias
        return LabelledWindows(lines, windows[-2], method, why, fusion, parts, latest, bias)

    def _cold_start(self, learned: LabelledWindows) -> list[LabelledRows]:
        """Rows of queries whose every edge was taken out, in three parts; none where nothing
        else is known of them.

        What ranks candidates for those who have edges misleads for those who have none:
        there are hardly any such queries in the windows, so they are made.
        """
        surface = self.config.surface(self.surface)
        relation = relation_of(surface)
        history, pairs, window = learned.lines.history, learned.lines.pairs, learned.window
        other = history.interactions if relation.self_typed else history.connections
        if not history.entities.user_attributes.columns and not len(other.source):
            return []
        random = np.random.default_rng([self.config.split.seed, 2])
        cold = random.random(len(history.entities.users)) < COLD_SHARE
        touched = asked = cold[pairs.source]
        if relation.self_typed:  # whoever has no edge left is asked for, and found by nobody
            touched, asked = asked | cold[pairs.target], asked ^ cold[pairs.target]
        made = Window(
            "cold_start",
            window.as_of,
            window.graph & ~touched,
            (window.graph | window.labels) & asked,
        )
        saved = learned.lines.line(made)
        saved = replace(saved, fusion=learned.fusion)
        positives = positives_of(saved.open().scope, relation, pairs, made)
        source = np.repeat(np.arange(len(positives), dtype=np.int32), positives.degree)
        group = random.integers(0, COLD_PARTS, len(positives))
        settings = surface.ranker.model_copy(
            update={"max_rows": max(1000, surface.ranker.max_rows // COLD_PARTS)}
        )
        parts = []
        for place in range(COLD_PARTS):
            own = cold[source] & (group[source] == place)
            part = build_graph(
                source[own], positives.indices[own], len(positives), positives.targets
            )
            parts.append(label_rows(self.engine, saved, part, settings, LABEL_WINDOWS + place))
        saved.remove()
        return parts


def positives_of(
    scope: Scope, relation: Relation, pairs: Pairs, window: Window, worth: FloatArray | None = None
) -> Graph:
    """The window's new edges between a known query and a known candidate, query by query.

    Args:
        worth: float32[pairs], what each counts, which is the weight of its edge; those of 0
            are left out. None counts all as 1.
    """
    worth = np.ones(len(pairs.source), np.float32) if worth is None else worth
    labels = window.labels & (worth > 0)
    source, target, value = pairs.source[labels], pairs.target[labels], worth[labels]
    if relation.symmetric:
        source, target, value = mirrored(source, target, value)  # type: ignore[assignment]
    known = scope.recommendable[target] & scope.snapshot.known_users[source]
    known &= ~scope.graph.contains(source, target)
    return build_graph(
        source[known], target[known], len(scope.graph), scope.graph.targets, value[known]
    )


def edge_worth(
    records: EdgeRecords, pairs: Pairs, end: int | None, settings: RankerConfig
) -> FloatArray | None:
    """float32[pairs]: what the best of each pair's events up to ``end`` counts; None: all 1."""
    if records.action is None or not settings.action_weights:
        return None
    value = action_worth(records.action, settings)
    if end is not None:
        value = np.where(records.time <= end, value, 0.0)
    worth = np.zeros(len(pairs.source), np.float32)
    np.maximum.at(worth, pairs.numbers(records), value.astype(np.float32))
    return worth


def learn_fusion(line: RankingPipeline, positives: Graph, settings: RankerConfig) -> Fusion:
    """What a rank of each source is worth, from label queries."""
    random = np.random.default_rng([settings.seed, 3])
    queries = random.permutation(np.flatnonzero(positives.degree))[:FUSION_QUERIES]
    learner = FusionLearner()
    for requests in batches(queries, line.scope.snapshot.as_of, 1):
        found = gather_sources(line.sources, line.limits, requests)
        learner.add(requests, found, positives)
    return learner.fusion()
