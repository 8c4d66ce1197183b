"""Step: nearest-neighbour indexes over the served embeddings, checked against brute force."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nextedge.index.sharded import ShardedIndex
from nextedge.index.vector_index import VectorIndex, choose_kind
from nextedge.steps.fits import load_sources
from nextedge.steps.step import Progress, SurfaceStep


class IndexStep(SurfaceStep):
    """``<source>/`` indexes of one surface, where there are too many candidates for brute force.

    Raises:
        IndexRecallError: an index finds less than ``target_recall``; nothing is published.
    """

    name = "index"

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
            shards = shard_count(settings.shards, size, dimensions, memory)
            each = -(-size // shards)
            kind = choose_kind(each, dimensions, memory, settings.exact_below)
            if settings.kind != "auto" and each > settings.exact_below:
                kind = settings.kind
            if kind == "flat" and shards == 1:
                continue
            if importlib.util.find_spec("faiss") is None:
                reports[name] = {"left_out": "all are compared: pip install 'nextedge[ann]'"}
                continue
            progress(f"index {self.surface}: {name}, {kind} of {size:,}", 0, 1)
            setting = surface.sources.get(name)
            asked = queries[np.abs(queries).sum(axis=1) > 0]
            given: dict[str, Any] = {
                "k": (setting.limit if setting else None) or surface.candidates,
                "kind": kind,
                "target_recall": settings.target_recall,
                "memory_bytes": memory,
            }
            (output / name).mkdir()
            if shards > 1:
                parts = ShardedIndex.build(vectors, asked, shards, **given)
                parts.save(output / name)
                reports[name] = {**vars(parts.report), "shards": len(parts.shards)}
            else:
                index = VectorIndex.build(vectors, asked, **given)
                index.save(output / name)
                reports[name] = vars(index.report)
        (output / "index.json").write_text(json.dumps(reports, indent=1))


def shard_count(given: int | Literal["auto"], size: int, dimensions: int, memory_bytes: int) -> int:
    """Shards of so many vectors: as given, or so many that each one's fit into memory whole.

    >>> shard_count("auto", 10_000_000, 128, 1 << 30), shard_count(3, 2, 8, 1 << 30)
    (5, 2)
    """
    wanted = -(-size * dimensions * 4 // memory_bytes) if given == "auto" else given
    return max(1, min(wanted, size))
