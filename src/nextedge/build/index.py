"""Step 7: build nearest-neighbor indexes over the served embeddings, checked against brute force.

Input: the fitted sources. Outputs: ``<source>/`` indexes where there are too many candidates for
brute force, and ``index.json``, which reports recall and what was left out.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from nextedge.build.step import SurfaceStep
from nextedge.index.sharded import ShardedIndex, shard_bounds, shard_folder
from nextedge.index.vector_index import Kind, VectorIndex, choose_kind
from nextedge.progress import Progress
from nextedge.retrieval.source import load_sources
from nextedge.storage.arrays import mapped
from nextedge.types import FloatArray


class IndexStep(SurfaceStep):
    """Builds the indexes of one surface.

    Raises:
        IndexRecallError: an index recalls less than ``target_recall``; nothing is published.
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
            size, dimensions = arrays["candidate"].shape
            shards = shard_count(settings.shards, size, dimensions, memory)
            shard_size = -(-size // shards)
            kind = choose_kind(shard_size, dimensions, memory, settings.exact_search_max_items)
            if settings.kind != "auto" and shard_size > settings.exact_search_max_items:
                kind = settings.kind
            if kind == "flat" and shards == 1:
                continue
            if importlib.util.find_spec("faiss") is None:
                reports[name] = {"left_out": "all are compared: pip install 'nextedge[ann]'"}
                continue
            progress(f"index {self.surface}: {name}, {kind} of {size:,}", 0, 1)
            setting = surface.sources.get(name)
            (output / name).mkdir()
            k = (setting.limit if setting else None) or surface.candidates
            build = BuildShard(
                inputs["sources"] / name,
                output / name,
                shards,
                kind,
                k,
                settings.target_recall,
                memory,
            )
            for _ in self.engine.map_blocks(build, build.blocks()):
                pass
            reports[name] = build.finish()
        (output / "index.json").write_text(json.dumps(reports, indent=1))


@dataclass(frozen=True)
class BuildShard:
    """The block function: number of a shard in, its index written.

    Attributes:
        vectors: folder of the ``query`` and ``candidate`` arrays of a source.
        output: folder of the source's index.
        shards: number of equal ranges; 1 is an index in one piece.
        k: list length of the recall.
    """

    vectors: Path
    output: Path
    shards: int
    kind: Kind
    k: int
    target_recall: float
    memory_bytes: int

    def __call__(self, block: pa.Table) -> pa.Table:
        candidates, queries = self._vectors()
        for shard in block["shard"].to_pylist():
            low, high = self._bounds(len(candidates))[shard : shard + 2]
            index = VectorIndex.build(
                candidates[low:high],
                queries,
                k=self.k,
                kind=self.kind,
                target_recall=self.target_recall,
                memory_bytes=self.memory_bytes,
            )
            folder = self.output if self.shards == 1 else self.output / shard_folder(shard)
            folder.mkdir(exist_ok=True)
            index.save(folder)
        return block

    def blocks(self) -> Iterator[pa.Table]:
        """One block a shard."""
        for shard in range(self.shards):
            yield pa.table({"shard": [shard]})

    def finish(self) -> Mapping[str, Any]:
        """Check all shards together; returns the report of the source."""
        candidates, queries = self._vectors()
        if self.shards == 1:
            return vars(VectorIndex.load(self.output, candidates).report)
        index = ShardedIndex.of_saved(self.output, candidates, self._bounds(len(candidates)))
        index.check(candidates, queries, self.k, self.target_recall)
        index.save_report(self.output)
        return {**vars(index.report), "shards": self.shards}

    def _vectors(self) -> tuple[FloatArray, FloatArray]:
        """All candidates, and the queries that have a vector."""
        queries = mapped(self.vectors / "query.npy")
        queries = queries[np.abs(queries).sum(axis=1) > 0]
        return mapped(self.vectors / "candidate.npy"), queries

    def _bounds(self, size: int) -> list[int]:
        return shard_bounds(size, self.shards)


def shard_count(
    setting: int | Literal["auto"], size: int, dimensions: int, memory_bytes: int
) -> int:
    """Number of shards: as set, or so many that the vectors of each fit into memory.

    >>> shard_count("auto", 10_000_000, 128, 1 << 30), shard_count(3, 2, 8, 1 << 30)
    (5, 2)
    """
    wanted = -(-size * dimensions * 4 // memory_bytes) if setting == "auto" else setting
    # A shard without a vector has nothing to search.
    return max(1, min(wanted, size))
