"""History as the steps of one surface read it: records, served graph, pairs and windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nextedge.build.time_split.history import History
from nextedge.build.time_split.pairs import Pairs
from nextedge.build.time_split.split import TimeSplit, Window
from nextedge.build.time_split.window_snapshot import window_snapshot
from nextedge.config import SurfaceConfig
from nextedge.engines.base import Engine
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Snapshot, relation_of
from nextedge.types import Relation


@dataclass(frozen=True, eq=False)
class SurfaceHistory:
    """The history of the relation that a surface predicts.

    Attributes:
        served: the snapshot of all records.
        pairs: the distinct pairs of ``served``, which the windows of ``split`` cut.
    """

    history: History
    relation: Relation
    served: Scope
    pairs: Pairs
    split: TimeSplit

    @classmethod
    def load(cls, inputs: Mapping[str, Path], surface: SurfaceConfig) -> SurfaceHistory:
        """Open the outputs of the entities, snapshot and windows steps."""
        history, relation = History.load(inputs["entities"]), relation_of(surface)
        served = Scope(Snapshot.load(inputs["snapshot"], history.entities), relation)
        pairs = Pairs.of(served.graph, relation)
        return cls(history, relation, served, pairs, TimeSplit.load(inputs["windows"]))

    def snapshot(self, window: Window, folder: Path, engine: Engine) -> Snapshot:
        """The snapshot as of a window, its graphs in an empty folder."""
        return window_snapshot(self.history, self.relation, self.pairs, window, folder, engine)
