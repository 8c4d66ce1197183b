"""Recommendations to Parquet, batch by batch, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from nextedge.data.partition import Part
from nextedge.progress import Progress
from nextedge.serving.messages import RecommendationRequest, RecommendationResponse

if TYPE_CHECKING:
    from nextedge.recommender import Recommender


def write_all(
    recommender: Recommender,
    question: RecommendationRequest,
    path: Path,
    progress: Progress,
    part: Part | None = None,
) -> int:
    """Recommend for every user, or a part of them, into one Parquet file, written atomically.

    Returns:
        The rows.
    """
    answers = recommender.recommend_all(question, progress, part)
    return write_answers(answers, question, recommender, path)


def write_answers(
    batches: Iterable[list[RecommendationResponse]],
    question: RecommendationRequest,
    recommender: Recommender,
    path: Path,
) -> int:
    """Write answers as ``user_id, rank, candidate_id | item_id, score, reason, sources``."""
    release = recommender.release
    table = release.surface(question.surface).candidate_table
    ids = release.entities.users if table == "users" else release.entities.items
    name = "candidate_id" if table == "users" else "item_id"
    kinds = [_kind(release.entities.users.values), _kind(ids.values)]
    schema = pa.schema(
        [
            ("user_id", kinds[0]),
            ("rank", pa.int32()),
            (name, kinds[1]),
            ("score", pa.float32()),
            ("reason", pa.string()),
            ("sources", pa.list_(pa.string())),
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two runs out of one partial file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    rows = 0
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for answers in batches:
                part = _rows(answers, schema, name)
                writer.write_table(part)
                rows += part.num_rows
        os.replace(partial, path)  # no reader sees half a file
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _rows(answers: list[RecommendationResponse], schema: pa.Schema, name: str) -> pa.Table:
    flat = [(answer.user_id, each) for answer in answers for each in answer.recommendations]
    columns = {
        "user_id": [
            # A request may name the user 7 as text.
            user if pa.types.is_string(schema.field("user_id").type) else int(user)
            for user, _ in flat
        ],
        "rank": [each.rank for _, each in flat],
        name: [each.id for _, each in flat],
        "score": [each.score for _, each in flat],
        "reason": [each.reason.text for _, each in flat],
        "sources": [list(each.sources) for _, each in flat],
    }
    return pa.table(columns, schema=schema)


def _kind(values: pa.Array) -> pa.DataType:
    return pa.int64() if pa.types.is_integer(values.type) else pa.string()
