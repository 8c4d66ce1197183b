"""Step 3: the graphs of all records, as requests read them.

Input: the records of the entities step. Output: one folder a graph, memory-mapped by every server
process, beside the communities and the real-time features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextedge.build.step import Step
from nextedge.build.time_split.history import History
from nextedge.build.time_split.window_snapshot import serving_snapshot
from nextedge.engines.base import Engine
from nextedge.progress import Progress


class SnapshotStep(Step):
    """Makes the snapshot that is served."""

    name = "snapshot"
    version = 4

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def settings(self) -> Mapping[str, Any]:
        return {}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        progress("snapshot: graphs", 0, 1)
        history = History.load(inputs["entities"])
        serving_snapshot(history, output, self.engine).save(output)
