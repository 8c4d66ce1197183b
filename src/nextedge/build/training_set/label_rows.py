"""Labelled rows of a window: candidates of its label queries, each with features and label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from nextedge.build.time_split.window_pipeline import BATCH, WindowPipeline, batches
from nextedge.build.training_set.impressions import ImpressionOutcomes
from nextedge.build.training_set.joined_two_hop import QUERIES, with_found
from nextedge.config import RankerConfig
from nextedge.engines.base import Engine
from nextedge.graph.csr import Graph
from nextedge.models.rankers.gbdt import LabelledRows
from nextedge.progress import Progress
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.types import BoolArray, Candidates, FloatArray, Requests


@dataclass(frozen=True)
class LabelledQueries:
    """The block function: queries in, labelled rows out.

    A candidate is positive when it became an edge, or was shown and taken. What was shown and
    refused is kept for certain; what was shown and may yet be answered is left out, as
    neither. Every positive and the best of the rest are kept; of the others some are drawn, and stand
    for all of them by their weight: without it, a positive that the sources rank low would
    stand among fewer negatives than it meets when served, and be overrated.

    Attributes:
        positives, shown: folders of graphs; ``shown`` None where nothing was.
        seed: of the window; what is drawn of a batch is its own.
    """

    line: WindowPipeline
    positives: Path
    shown: Path | None
    settings: RankerConfig
    seed: int

    def __call__(self, block: pa.Table) -> pa.Table:
        """Columns ``query`` (place in the block), ``label``, ``weight`` and ``features``."""
        line, number = self.line.open(), block["batch"][0].as_py()
        random = np.random.default_rng([self.settings.seed, self.seed, number])
        positives = Graph.load(self.positives)
        shown = None if self.shown is None else ImpressionOutcomes.load(self.shown)
        query = block["query"].to_numpy()
        requests = Requests(query, line.scope.snapshot.as_of, 1)
        candidates, label, refused = _labelled(line, requests, positives, shown)
        kept, weight = _drawn(candidates, label, self.settings, random, refused)
        candidates, label, weight = candidates.keep(kept), label[kept], weight[kept]
        if shown is not None:
            pair = query[candidates.row_query], candidates.candidate
            refusals = shown.refused.weights(*pair)
            weight = _with_refusals(candidates, label, weight, refusals, self.settings)
        matrix = np.ascontiguousarray(line.matrix(requests, candidates), np.float32)
        features = pa.FixedSizeListArray.from_arrays(
            pa.array(matrix.reshape(-1)), max(matrix.shape[1], 1)
        )
        return pa.table(
            {
                "query": candidates.row_query,
                "label": label.astype(np.float32),
                "weight": weight.astype(np.float32),
                "features": features,
            }
        )


def label_rows(
    engine: Engine,
    line: WindowPipeline,
    positives: Graph,
    settings: RankerConfig,
    seed: int,
    shown: ImpressionOutcomes | None = None,
    progress: Progress = lambda *_: None,
) -> LabelledRows:
    """Labelled rows of as many label queries, in an order drawn by seed, as ``max_rows`` allows.

    Kept beside the line, so that a stopped build goes on with the next block.
    """
    folder = line.folder.with_name(f"{line.folder.name}-rows-{seed}")
    folder.mkdir(exist_ok=True)
    function = LabelledQueries(
        line,
        _saved(positives, folder / "positives"),
        None if shown is None else _saved_shown(shown, folder / "shown"),
        settings,
        seed,
    )
    wanted = positives.degree if shown is None else positives.degree + shown.taken.degree
    queries = np.random.default_rng([settings.seed, seed]).permutation(np.flatnonzero(wanted))
    tables, rows = [], 0
    for table in _tables(engine, function, queries, folder):
        tables.append(table)
        rows += len(table)
        progress("rows", min(rows, settings.max_rows), settings.max_rows)
        if rows >= settings.max_rows:
            break
    return _joined(tables, len(line.features.names))


def _tables(
    engine: Engine, function: LabelledQueries, queries: np.ndarray, folder: Path
) -> Iterator[pa.Table]:
    for number, (line, group) in enumerate(with_found(engine, function.line, queries)):
        blocks = _blocks(group, first=number * QUERIES // BATCH)
        keep = folder / f"blocks-{number}"
        yield from engine.map_blocks(replace(function, line=line), blocks, keep=keep)


def _blocks(queries: np.ndarray, first: int) -> Iterator[pa.Table]:
    for number, requests in enumerate(batches(queries, 0, 1), first):
        number_Q = np.full(len(requests), number, np.int32)
        yield pa.table({"query": requests.query, "batch": number_Q})


def _joined(tables: list[pa.Table], width: int) -> LabelledRows:
    """The rows of all blocks; each is let go once it is copied."""
    size = sum(map(len, tables))
    matrix = np.empty((size, width), np.float32)
    label, weight = np.empty(size, np.float32), np.empty(size, np.float32)
    groups, start = [np.zeros(0, np.int64)], 0
    for place, table in enumerate(tables):
        if not len(table):  # nobody of the block caught a new edge
            continue
        rows = slice(start, start + len(table))
        features = table["features"].combine_chunks()
        matrix[rows] = features.flatten().to_numpy().reshape(len(table), -1)[:, :width]
        label[rows], weight[rows] = table["label"].to_numpy(), table["weight"].to_numpy()
        groups.append(np.bincount(table["query"].to_numpy()))
        tables[place], start = table.slice(0, 0), rows.stop
    group = np.concatenate(groups)
    return LabelledRows(matrix, label, group[group > 0], weight)


def _saved(graph: Graph, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    graph.save(folder)
    return folder


def _saved_shown(shown: ImpressionOutcomes, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    shown.save(folder)
    return folder


def _with_refusals(
    candidates: Candidates,
    label: FloatArray,
    weight: FloatArray,
    refused: FloatArray,
    settings: RankerConfig,
) -> FloatArray:
    """float32[R] weights in which a query's refusals have ``refused_share`` of its negatives'.

    Those who were shown something and refused it say for certain what the many who were never
    asked do not; one by one they would be lost among them.
    """
    row, queries = candidates.row_query, candidates.queries
    shown = (refused > 0) & (label == 0)
    others = np.bincount(row, np.where(shown | (label > 0), 0.0, weight), minlength=queries)
    own = np.bincount(row, np.where(shown, refused, 0.0), minlength=queries)
    share = settings.refused_share
    scale = np.maximum(others * share / (1.0 - share) / np.maximum(own, 1e-9), 1.0)
    return np.where(shown, refused * scale[row], weight).astype(np.float32)


def _labelled(
    line: RankingPipeline, requests: Requests, positives: Graph, shown: ImpressionOutcomes | None
) -> tuple[Candidates, FloatArray, BoolArray]:
    """Candidates of a batch, what each counts as positive, and which were shown and refused."""
    candidates = line.retrieve(requests)
    pair = requests.query[candidates.row_query], candidates.candidate
    label = positives.weights(*pair)
    if shown is None:
        return candidates, label, np.zeros(len(label), bool)
    label = np.maximum(label, shown.taken.weights(*pair))
    known = (label > 0) | ~shown.open.contains(*pair)
    refused = shown.refused.contains(*pair) & (label == 0)
    return candidates.keep(known), label[known], refused[known]


def _drawn(
    candidates: Candidates,
    label: FloatArray,
    settings: RankerConfig,
    random: np.random.Generator,
    refused: BoolArray | None = None,
) -> tuple[BoolArray, FloatArray]:
    """Which rows of queries with a positive to keep (bool[R]), and what each stands for."""
    caught = np.bincount(candidates.row_query, label, minlength=candidates.queries) > 0
    certain = (label > 0) | (candidates.position() < settings.top_negatives)
    certain |= False if refused is None else refused
    others = np.bincount(candidates.row_query, ~certain, minlength=candidates.queries)
    rate = np.minimum(settings.sampled_negatives / np.maximum(others, 1), 1.0)[candidates.row_query]
    kept = (certain | (random.random(len(candidates)) < rate)) & caught[candidates.row_query]
    return kept, np.where(certain, 1.0, 1.0 / rate).astype(np.float32)
