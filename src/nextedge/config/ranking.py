"""Settings of the ranker, of the re-ranker and of the indexes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from nextedge import schema
from nextedge.config.settings import Settings
from nextedge.errors import nearest

RankerKind = Literal[
    "lightgbm",
    "lightgbm_binary",
    "lambdarank",
    "xgboost",
    "mlp",
    "two_tower",
    "blend",
    "best_source",
]


class RankerConfig(Settings):
    """The ranker and its training."""

    model: Literal["auto"] | RankerKind = "auto"
    """The ranker to serve; ``auto`` serves the compared one that is best on later label windows."""
    compare: tuple[RankerKind, ...] = ("lightgbm", "blend", "best_source")
    """Rankers that are trained and compared; each costs its training."""
    trees: int = Field(300, ge=1)
    """Most trees of a tree ranker."""
    leaves: int = Field(15, ge=2, le=64)
    """Leaves of a tree."""
    learning_rate: float = Field(0.1, gt=0, le=1)
    """Shrinkage of each tree."""
    min_rows_in_leaf: int = Field(50, ge=1)
    """Fewest training rows in a leaf."""
    leaf_penalty: float = Field(5.0, ge=0)
    """L2 penalty on leaf values."""
    early_stopping: int = Field(30, ge=1)
    """Trees without an improvement after which training stops."""
    max_rows: int = Field(200_000, ge=1000)
    """Most candidate rows that a label window gives to training; bounds the cost of a build."""
    top_negatives: int = Field(80, ge=0)
    """Negatives of a label query that training always reads: the best by rough score."""
    sampled_negatives: int = Field(70, ge=1)
    """Negatives of a label query drawn from the rest, each weighted for those not drawn."""
    attribution_days: float = Field(14.0, gt=0)
    """Days after which an impression without an action counts as a refusal."""
    impression_window_days: float = Field(90.0, gt=0)
    """Days of impressions that training reads."""
    action_weights: dict[str, float] = Field(default_factory=dict)
    """Action of an impression, or event of an interaction = its weight as a label (1 where it is
    not named); 0 makes it no label. The weight of ``dismiss`` is the number of refusals that it
    counts for."""
    refused_share: float = Field(0.5, ge=0, lt=1)
    """Weight of refused impressions among a query's negatives; the others were never shown."""
    position_bias: bool = True
    """Weight accepted impressions at low ranks higher, where impressions have positions."""
    seed: int = 0
    """Seed of samples and of training."""

    @field_validator("action_weights")
    @classmethod
    def _known_actions(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if name not in schema.ACTIONS:
                raise ValueError(f"no action {name!r}; {nearest(name, schema.ACTIONS)}")
            if not 0 <= weight <= 100:
                raise ValueError(f"action_weights.{name} = {weight}: expected 0 to 100")
        return value


class RerankerConfig(Settings):
    """The re-ranker of the head of every list, by attention between sampled neighborhoods."""

    enabled: bool = False
    """Train a re-ranker; it is served where it ranks the last label window better."""
    depth: int = Field(50, ge=2, le=500)
    """Candidates at the head of a list that it orders."""
    neighbors: int = Field(16, ge=1, le=128)
    """Neighbors of the query, and of each candidate, that it reads."""
    dimensions: int = Field(32, ge=4, le=256)
    """Width of the network."""
    epochs: int = Field(8, ge=1)
    """Passes over the training queries."""
    learning_rate: float = Field(1e-3, gt=0)
    """Step size of training."""
    queries: int = Field(2000, ge=50)
    """Label queries of a window that train it, and that it is compared on."""
    seed: int = 0
    """Seed of training."""


class IndexConfig(Settings):
    """The nearest-neighbor index over a model's embeddings."""

    kind: Literal["auto", "flat", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq"] = "auto"
    """Kind of index; ``auto`` chooses by the number of vectors and the memory, ``flat`` compares
    with all."""
    exact_search_max_items: int = Field(50_000, ge=0)
    """Candidates up to which a search compares with all, without an index."""
    target_recall: float = Field(0.95, gt=0, le=1)
    """Share of the truly nearest that the index must find, or the build fails."""
    memory_mb: int = Field(4096, ge=1)
    """Most memory of the index, or of each of its shards."""
    shards: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = 1
    """Shards for ``nextedge serve-shard``; ``auto`` = as many as ``memory_mb`` needs."""
