"""Labelled rows of a window: candidates of its label queries, each with features and label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from nextedge.build.time_split.window_pipeline import BATCH, WindowPipeline, batches
from nextedge.build.training_set.impression_outcomes import ImpressionOutcomes
from nextedge.build.training_set.two_hop_join import QUERIES, with_joined_two_hop
from nextedge.config import RankerConfig
from nextedge.engines.base import Engine
from nextedge.graph.csr import Graph
from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.types import BoolArray, Candidates, FloatArray, Requests


@dataclass(frozen=True)
class LabelQueries:
    """The block function: queries in, labelled rows out.

    A candidate is positive when it became an edge, or was taken as an impression. Impressions that
    are still open are left out. Every positive, every refused impression and the best of the rest
    are kept; the others are sampled, and stand for all of them by their weight.

    Attributes:
        positives: folder of a graph.
        impressions: folder of the outcomes of impressions, or None.
        seed: of the window; each batch draws by it and by its own number.
    """

    pipeline: WindowPipeline
    positives: Path
    impressions: Path | None
    settings: RankerConfig
    seed: int

    def __call__(self, block: pa.Table) -> pa.Table:
        """Columns ``query`` (index in the block), ``label``, ``weight`` and ``features``."""
        pipeline, batch = self.pipeline.open(), block["batch"][0].as_py()
        # By batch, so that a resumed build draws the same rows in any order.
        random = np.random.default_rng([self.settings.seed, self.seed, batch])
        positives = Graph.load(self.positives)
        outcomes = None if self.impressions is None else ImpressionOutcomes.load(self.impressions)
        query = block["query"].to_numpy()
        requests = Requests(query, pipeline.scope.snapshot.as_of, 1)
        candidates, label, refused = _labelled(pipeline, requests, positives, outcomes)
        sampled, weight = sample_rows(candidates, label, self.settings, random, refused)
        candidates, label, weight = candidates.keep(sampled), label[sampled], weight[sampled]
        if outcomes is not None:
            pair = query[candidates.row_query], candidates.candidate
            refusals = outcomes.refused.weights(*pair)
            weight = weigh_refusals(candidates, label, weight, refusals, self.settings)
        matrix = np.ascontiguousarray(pipeline.matrix(requests, candidates), np.float32)
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
    pipeline: WindowPipeline,
    positives: Graph,
    settings: RankerConfig,
    seed: int,
    outcomes: ImpressionOutcomes | None = None,
) -> LabelledRows:
    """Labelled rows of as many label queries, in an order drawn by seed, as ``max_rows`` allows.

    Keeps the rows of each block beside the pipeline, so that a resumed build goes on with the
    next block.
    """
    folder = pipeline.folder.with_name(f"{pipeline.folder.name}-rows-{seed}")
    (folder / "positives").mkdir(parents=True, exist_ok=True)
    positives.save(folder / "positives")
    impressions, wanted = None, positives.degree
    if outcomes is not None:
        impressions, wanted = folder / "impressions", wanted + outcomes.taken.degree
        outcomes.save(impressions)
    # In random order, because max_rows cuts off the rest.
    queries = np.random.default_rng([settings.seed, seed]).permutation(np.flatnonzero(wanted))
    function = LabelQueries(pipeline, folder / "positives", impressions, settings, seed)
    tables, rows = [], 0
    for table in _tables(engine, function, queries, folder):
        tables.append(table)
        rows += len(table)
        if rows >= settings.max_rows:
            break
    return _joined(tables, len(pipeline.features.names))


def _tables(
    engine: Engine, function: LabelQueries, queries: np.ndarray, folder: Path
) -> Iterator[pa.Table]:
    for number, (pipeline, group) in enumerate(
        with_joined_two_hop(engine, function.pipeline, queries)
    ):
        # Numbers go on from group to group, because each batch draws by its own.
        blocks = _blocks(group, first=number * QUERIES // BATCH)
        keep = folder / f"blocks-{number}"
        yield from engine.map_blocks(replace(function, pipeline=pipeline), blocks, keep=keep)


def _blocks(queries: np.ndarray, first: int) -> Iterator[pa.Table]:
    for number, requests in enumerate(batches(queries, 0, 1), first):
        batch_Q = np.full(len(requests), number, np.int32)
        yield pa.table({"query": requests.query, "batch": batch_Q})


def _joined(tables: list[pa.Table], width: int) -> LabelledRows:
    """The rows of all blocks, in one array a column."""
    size = sum(map(len, tables))
    # Filled in place: a concatenation would need the memory twice.
    matrix = np.empty((size, width), np.float32)
    label, weight = np.empty(size, np.float32), np.empty(size, np.float32)
    groups, start = [np.zeros(0, np.int64)], 0
    for number, table in enumerate(tables):
        if not len(table):  # no query of the block has a candidate with a label
            continue
        rows = slice(start, start + len(table))
        features = table["features"].combine_chunks()
        matrix[rows] = features.flatten().to_numpy().reshape(len(table), -1)[:, :width]
        label[rows], weight[rows] = table["label"].to_numpy(), table["weight"].to_numpy()
        groups.append(np.bincount(table["query"].to_numpy()))
        tables[number], start = table.slice(0, 0), rows.stop  # frees the block once it is copied
    group = np.concatenate(groups)
    return LabelledRows(matrix, label, group[group > 0], weight)  # 0 for queries without rows


def _labelled(
    pipeline: RankingPipeline,
    requests: Requests,
    positives: Graph,
    outcomes: ImpressionOutcomes | None,
) -> tuple[Candidates, FloatArray, BoolArray]:
    """Candidates of a batch, the label of each, and which are refused impressions."""
    candidates = pipeline.retrieve(requests)
    pair = requests.query[candidates.row_query], candidates.candidate
    label = positives.weights(*pair)
    if outcomes is None:
        return candidates, label, np.zeros(len(label), bool)
    label = np.maximum(label, outcomes.taken.weights(*pair))
    decided = (label > 0) | ~outcomes.open.contains(*pair)
    # A refusal that became an edge all the same is a positive.
    refused = outcomes.refused.contains(*pair) & (label == 0)
    return candidates.keep(decided), label[decided], refused[decided]


def sample_rows(
    candidates: Candidates,
    label: FloatArray,
    settings: RankerConfig,
    random: np.random.Generator,
    refused: BoolArray | None = None,
) -> tuple[BoolArray, FloatArray]:
    """Rows to keep (bool[R]) of queries with a positive, and how many candidates each stands for."""
    has_positive = np.bincount(candidates.row_query, label, minlength=candidates.queries) > 0
    certain = (label > 0) | (candidates.position() < settings.top_negatives)
    certain |= False if refused is None else refused
    others = np.bincount(candidates.row_query, ~certain, minlength=candidates.queries)
    rate = np.minimum(settings.sampled_negatives / np.maximum(others, 1), 1.0)[candidates.row_query]
    sampled = certain | (random.random(len(candidates)) < rate)
    return (
        sampled & has_positive[candidates.row_query],
        # Unweighted, a positive at a low rank would meet too few negatives and be overrated.
        np.where(certain, 1.0, 1.0 / rate).astype(np.float32),
    )


def weigh_refusals(
    candidates: Candidates,
    label: FloatArray,
    weight: FloatArray,
    refused: FloatArray,
    settings: RankerConfig,
) -> FloatArray:
    """float32[R] weights in which a query's refusals have ``refused_share`` of its negatives'.

    A refused impression is a certain negative, a candidate without an impression is not; one by
    one the refusals would be lost among the many others.
    """
    row, queries = candidates.row_query, candidates.queries
    refusal = (refused > 0) & (label == 0)
    others = np.bincount(row, np.where(refusal | (label > 0), 0.0, weight), minlength=queries)
    refusals = np.bincount(row, np.where(refusal, refused, 0.0), minlength=queries)
    share = settings.refused_share
    scale = np.maximum(others * share / (1.0 - share) / np.maximum(refusals, 1e-9), 1.0)
    return np.where(refusal, refused * scale[row], weight).astype(np.float32)
