"""Step 6: fit every candidate source of a surface to the snapshot that is served.

Inputs: users and items, the snapshot, and the trained models. Output: one folder of arrays a
source, which requests read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextedge.build.embed import SERVE, trained_models
from nextedge.build.step import SurfaceStep, checkpoints
from nextedge.progress import Progress
from nextedge.ranking.fit_sources import FitSources


class SourcesStep(SurfaceStep):
    """Fits the sources that serve."""

    name = "sources"

    def settings(self) -> Mapping[str, Any]:
        surface = self.config.surface(self.surface)
        # Not the whole surface: a change of its policy fits nothing anew.
        return {"sources": surface.model_dump()["sources"], "kind": surface.kind}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        progress(f"sources {self.surface}", 0, 1)
        fit = FitSources(
            entities=inputs["entities"] / "entities",
            snapshot=inputs["snapshot"],
            surface=self.config.surface(self.surface),
            trained=trained_models(inputs["embed"], SERVE),
            output=output,
        )
        fit.run(self.engine, checkpoints(output) / "layers")
