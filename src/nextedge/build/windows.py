"""Step 4: cut the history of a surface's relation into label windows and an evaluation window.

Inputs: the snapshot of all records. Output: ``windows.json`` and two masks over the relation's
pairs for each window. The steps that train and judge read the same cut, so that no label of one
window is in the graph of an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextedge.build.step import SurfaceStep
from nextedge.build.time_split.pairs import Pairs
from nextedge.build.time_split.split import TimeSplit
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Entities, Snapshot, relation_of
from nextedge.progress import Progress


class WindowsStep(SurfaceStep):
    """Cuts once for all steps of a surface; surfaces of one kind share the output."""

    name = "windows"

    def settings(self) -> Mapping[str, Any]:
        kind = self.config.surface(self.surface).kind
        return {"kind": kind, "split": self.config.split.model_dump()}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        progress(f"windows {self.surface}", 0, 1)
        relation = relation_of(self.config.surface(self.surface))
        entities = Entities.load(inputs["entities"] / "entities")
        served = Scope(Snapshot.load(inputs["snapshot"], entities), relation)
        # A pair of people is the label of both ends: its windows cannot divide the queries.
        split = TimeSplit.of(
            Pairs.of(served.graph, relation), self.config.split, divide=not relation.self_typed
        )
        split.save(output)
