"""A release with one index in shards and nothing else, for tests and benchmarks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from nextedge.index.sharded import ShardedIndex
from nextedge.releases.manifest import FORMAT, MANIFEST
from nextedge.releases.repository import Releases
from nextedge.types import FloatArray

SURFACE, SOURCE = "items", "als"


def write_shards(
    state: Path, release_id: str, vectors: FloatArray, index: ShardedIndex | int
) -> Releases:
    """Write and promote a release of one index; returns the releases of the state folder.

    Args:
        vectors: float32[N, d] of the candidates.
        index: an index of the vectors, or the number of shards of an exact one.
    """
    if isinstance(index, int):
        index = ShardedIndex.build(vectors, vectors[:0], index, kind="flat")
    releases = Releases(state)
    path = releases.directory / release_id
    home = path / "surfaces" / SURFACE
    (home / "index" / SOURCE).mkdir(parents=True)
    (home / "sources" / SOURCE).mkdir(parents=True)
    index.save(home / "index" / SOURCE)
    np.save(home / "sources" / SOURCE / "candidate.npy", vectors)
    files = {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    manifest = {"format": FORMAT, "surfaces": [SURFACE], "files": files}
    (path / MANIFEST).write_text(json.dumps(manifest))
    releases.promote(release_id)
    return releases
