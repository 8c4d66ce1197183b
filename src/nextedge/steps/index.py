"""Step: nearest-neighbour indexes over the served embeddings, checked against brute force."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.config import Config
from nextedge.index.vector_index import VectorIndex, choose_kind
from nextedge.steps.publishable import load_sources
from nextedge.steps.step import Progress, Step


class IndexStep(Step):
    """``<source>/`` indexes of one surface, where there are too many candidates for brute force.

    Raises:
        IndexRecallError: an index finds less than ``target_recall``; nothing is published.
    """

    name = "index"

    def __init__(self, config: Config, surface: str) -> None:
        self.config = config
        self.surface = surface

    def settings(self) -> Mapping[str, Any]:
        surface = self.config.surface(self.surface)
        return {"index": surface.index.model_dump(), "candidates": surface.candidates}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        surface = self.config.surface(self.surface)
        settings = surface.index
        memory = settings.memory_mb << 20
        reports: dict[str, Mapping[str, Any]] = {}
        for name, arrays in load_sources(inputs["sources"]).items():
            if not {"query", "candidate"} <= arrays.keys():
                continue
            vectors, queries = arrays["candidate"], np.asarray(arrays["query"])
            size, dimensions = vectors.shape
            kind = choose_kind(size, dimensions, memory, settings.exact_below)
            if settings.kind != "auto" and len(vectors) > settings.exact_below:
                kind = settings.kind
            if kind == "flat":
                continue
            if importlib.util.find_spec("faiss") is None:
                reports[name] = {"left_out": "all are compared: pip install 'nextedge[ann]'"}
                continue
            progress(f"index {self.surface}: {name}, {kind} of {len(vectors):,}", 0, 1)
            setting = surface.sources.get(name)
            index = VectorIndex.build(
                vectors,
                queries[np.abs(queries).sum(axis=1) > 0],
                k=(setting.limit if setting else None) or surface.candidates,
                kind=kind,
                target_recall=settings.target_recall,
                memory_bytes=memory,
            )
            (output / name).mkdir()
            index.save(output / name)
            reports[name] = vars(index.report)
        (output / "index.json").write_text(json.dumps(reports, indent=1))
