"""Work on every user of a release in parts, each a block on an engine's machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nextedge.cli.export import write_all
from nextedge.config import Config
from nextedge.data.partition import Part
from nextedge.engines.base import Engine
from nextedge.progress import Progress
from nextedge.recommender import Recommender
from nextedge.serving.messages import RecommendationRequest

_PARTS_A_CORE = 4
_opened: dict[Path, Recommender] = {}


@dataclass(frozen=True)
class PublishedPart:
    """The block function: parts of the users in, numbers of lists that are kept out."""

    config: Config
    release: str
    users: int | None

    def __call__(self, block: pa.Table) -> pa.Table:
        publish = _recommender(self.config).publish
        done = [publish(self.release, users=self.users, part=part) for part in _parts(block)]
        return pa.table({"lists": done})


@dataclass(frozen=True)
class RecommendedPart:
    """The block function: parts of the users in, files of their recommendations out."""

    config: Config
    question: RecommendationRequest
    path: Path

    def __call__(self, block: pa.Table) -> pa.Table:
        files = [self.path / f"{part.index:06}.parquet" for part in _parts(block)]
        recommender = _recommender(self.config)
        for file, part in zip(files, _parts(block), strict=True):
            if not file.exists():  # a stopped run left it whole
                write_all(recommender, self.question, file, lambda *_: None, part)
        return pa.table({"file": [str(file) for file in files]})


def publish_all(
    engine: Engine,
    recommender: Recommender,
    release: str | None,
    users: int | None,
    progress: Progress,
) -> int:
    """``Recommender.publish`` on an engine's machines; the store must be one that all reach."""
    # One id for all machines, whatever is promoted meanwhile.
    function = PublishedPart(recommender.config, release or recommender.release.id, users)
    return sum(sum(t["lists"].to_pylist()) for t in _done(engine, function, "publish", progress))


def recommend_all(
    engine: Engine,
    recommender: Recommender,
    question: RecommendationRequest,
    path: Path,
    progress: Progress,
) -> int:
    """``write_all`` on an engine's machines, part by part of the users; returns the rows.

    Parts that a stopped run finished, for the same release and question, are not made again.
    """
    release = recommender.release.id
    # The name has release, surface and k: parts of a run with others are not taken.
    folder = path.with_name(f".{path.name}.{release}.{question.surface}.{question.k}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    function = RecommendedPart(recommender.config, question, folder)
    files = [
        file
        for table in _done(engine, function, "recommend", progress)
        for file in table["file"].to_pylist()
    ]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    rows = 0
    try:
        with pq.ParquetWriter(partial, pq.read_schema(files[0]), compression="zstd") as writer:
            for file in files:
                for batch in pq.ParquetFile(file).iter_batches():
                    writer.write_batch(batch)
                    rows += len(batch)
        # Readers see the old file or all of the new one.
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    for file in files:
        Path(file).unlink()
    folder.rmdir()
    return rows


def _done(
    engine: Engine, function: Callable[[pa.Table], pa.Table], what: str, progress: Progress
) -> Iterator[pa.Table]:
    of = engine.cores * _PARTS_A_CORE
    blocks = (pa.table({"place": [place], "of": [of]}) for place in range(of))
    for done, table in enumerate(engine.map_blocks(function, blocks), 1):
        progress(f"{what}: parts", done, of)
        yield table


def _parts(block: pa.Table) -> list[Part]:
    return [Part(row["place"], row["of"]) for row in block.to_pylist()]


def _recommender(config: Config) -> Recommender:
    """The recommender of this process."""
    state = config.state_path
    if state not in _opened:
        _opened.clear()  # one a process, as its release is large
        _opened[state] = Recommender(config)
    return _opened[state]
