"""The training set of a surface: labelled rows of all its label windows.

Candidates and features of a window come from its own graph, which holds none of its labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from nextedge.build.time_split.split import LABEL_WINDOWS, Window
from nextedge.build.time_split.window_pipeline import WindowPipeline, WindowPipelineFactory, batches
from nextedge.build.training_set.impression_outcomes import outcomes_between
from nextedge.build.training_set.label_rows import label_rows
from nextedge.build.training_set.new_edges import edge_worth, positives_of
from nextedge.build.training_set.reranker import LabelWindow
from nextedge.config import RankerConfig
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.position_bias import PositionBias
from nextedge.progress import Progress
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.retrieval.fusion import FILE as FUSION
from nextedge.retrieval.fusion import Fusion, FusionLearner

FUSION_QUERIES = 1_000
COLD_SHARE = 0.1
"""Share of the users whose edges are taken out, to learn how to rank for users without edges."""
COLD_PARTS = 3


@dataclass(eq=False)
class TrainingSet:
    """What the label windows of one surface teach.

    Attributes:
        fusion: what a rank in each source is worth, by the first window.
        rows: labelled rows of every label window, in order.
        reranker_windows: all windows but the first; none where the re-ranker is off.
        bias: examination of each position, by the last window.
    """

    pipelines: WindowPipelineFactory
    fusion: Fusion = field(default_factory=Fusion)
    rows: list[LabelledRows] = field(default_factory=list)
    reranker_windows: list[LabelWindow] = field(default_factory=list)
    bias: PositionBias | None = None

    def collect(self, name: str, progress: Progress) -> TrainingSet:
        """Label the candidates of every window; ``name`` of the surface is for progress."""
        surface, folder = self.pipelines.surface, self.pipelines.folder
        history, split = self.pipelines.history, self.pipelines.history.split
        reranks = surface.reranker.enabled
        pipeline: WindowPipeline | None = None
        for number, window in enumerate(split.label_windows):
            progress(f"rank {name}: candidates of {window.name}", number, LABEL_WINDOWS + 1)
            following, file = split.windows[number + 1], folder / f"{window.name}-rows.npz"
            outcomes = outcomes_between(
                history.history, history.relation, window.as_of, following.as_of, surface.ranker
            )
            self.bias = None if outcomes is None else outcomes.bias
            # The re-ranker needs the windows' pipelines, so that their rows alone do not do.
            if file.exists() and not reranks:
                self.rows.append(LabelledRows.load(file))
                self.fusion = Fusion.load(folder / FUSION)
                continue
            # Windows that share a graph share its pipeline, whose sources take long to fit.
            if pipeline is None or window.graph is not split.windows[number - 1].graph:
                pipeline = self.pipelines.pipeline(window)
            opened = pipeline.open()
            positives = self._positives(opened, window, following.as_of)
            if number == 0:
                self.fusion = learn_fusion(opened, positives, surface.ranker)
                # A resumed build reads it where it skips the window.
                self.fusion.save(folder / FUSION)
            pipeline = replace(pipeline, fusion=self.fusion)
            if reranks and number > 0:
                latest = LabelWindow(pipeline.open(), positives, tuple(self.rows))
                self.reranker_windows.append(latest)
            self.rows.append(
                label_rows(
                    self.pipelines.engine, pipeline, positives, surface.ranker, number, outcomes
                )
            )
            self.rows[-1].save(file)
            del opened  # maps the files that go
            if not reranks and window.graph is not following.graph:
                pipeline.remove()
                pipeline = None
        return self

    def _positives(self, pipeline: RankingPipeline, window: Window, end: int | None) -> Graph:
        """The window's new edges, each weighted by its best event up to the window's end."""
        history = self.pipelines.history
        records = history.history.of(history.relation)
        worth = edge_worth(records, history.pairs, end, self.pipelines.surface.ranker)
        return positives_of(pipeline.scope, history.pairs, window, worth)

    def cold_start(self, seed: int) -> list[LabelledRows]:
        """Rows of queries whose every edge was taken out, in three parts; none without other facts.

        What ranks candidates for users with edges misleads for users without: the windows have
        hardly any such queries, so they are made here.
        """
        pairs, relation = self.pipelines.history.pairs, self.pipelines.history.relation
        history, split = self.pipelines.history.history, self.pipelines.history.split
        other = history.of_other(relation)
        if not history.entities.user_attributes.columns and not len(other.source):
            return []
        random = np.random.default_rng([seed, 2])
        cold = random.random(len(history.entities.users)) < COLD_SHARE
        removed = labels = cold[pairs.source]
        if relation.self_typed:
            # A user without edges is a query, and no source finds them as a candidate.
            removed, labels = removed | cold[pairs.target], labels ^ cold[pairs.target]
        last = split.label_windows[-1]
        window = Window(
            "cold_start", last.as_of, last.graph & ~removed, (last.graph | last.labels) & labels
        )
        pipeline = replace(self.pipelines.pipeline(window), fusion=self.fusion)
        positives = positives_of(pipeline.open().scope, pairs, window)
        source = np.repeat(np.arange(len(positives), dtype=np.int32), positives.degree)
        group = random.integers(0, COLD_PARTS, len(positives))
        settings = self.pipelines.surface.ranker
        most = max(1000, settings.max_rows // COLD_PARTS)
        settings = settings.model_copy(update={"max_rows": most})
        parts = []
        for number in range(COLD_PARTS):
            chosen = cold[source] & (group[source] == number)
            part = build_graph(
                source[chosen], positives.indices[chosen], len(positives), positives.targets
            )
            seed_of_part = LABEL_WINDOWS + number
            parts.append(label_rows(self.pipelines.engine, pipeline, part, settings, seed_of_part))
        pipeline.remove()
        return parts


def learn_fusion(pipeline: RankingPipeline, positives: Graph, settings: RankerConfig) -> Fusion:
    """What a rank of each source is worth, from label queries."""
    random = np.random.default_rng([settings.seed, 3])
    queries = random.permutation(np.flatnonzero(positives.degree))[:FUSION_QUERIES]
    learner = FusionLearner()
    for requests in batches(queries, pipeline.scope.snapshot.as_of, 1):
        learner.add(requests, pipeline.search(requests), positives)
    return learner.fusion()
