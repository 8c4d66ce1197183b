"""What a retrieval model is: fitted on a graph and what is known of its nodes, it scores pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from nextedge.discovery import import_modules, named_subclasses
from nextedge.graph.csr import Graph
from nextedge.models.artifact import Artifact
from nextedge.models.inference import IN_PROCESS, Inference
from nextedge.types import FloatArray, Relation

ModelProgress = Callable[[str, int, int], None]
"""Told (what is being done, how much is done, how much there is)."""


class ModelConfig(BaseModel):
    """Settings of a model: frozen, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a model may read.

    Attributes:
        relation: whose edges are predicted.
        graph: its edges as of the cut, query × candidate.
        query_features: float32[Q, F] of the queries, or None; columns are normalised.
        candidate_features: float32[N, G] of the candidates, or None (the same array as
            ``query_features`` where the relation joins nodes of one kind).
        others: further graphs by name, e.g. ``connections`` (query × query).
        seed: of everything drawn.
        directory: folder for checkpoints, or None to keep none; processes that train together
            share it.
        partitioned: whether such processes hold a part of the graph each, where the model can.
    """

    relation: Relation
    graph: Graph
    query_features: FloatArray | None = None
    candidate_features: FloatArray | None = None
    others: dict[str, Graph] = field(default_factory=dict)
    seed: int = 0
    directory: Path | None = None
    partitioned: bool = False


class Model(ABC):
    """A new model is one file in this package with one subclass: it is found by its ``name``.

    Its artifact holds embeddings (``query``, ``candidate``), candidate similarities
    (``similar_indptr``, ``similar_indices``, ``similar_values``), or both.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[ModelConfig]]
    extra: ClassVar[str | None] = None
    """The extra of the package that fitting needs, or None."""
    trained: ClassVar[bool] = False
    """Whether fitting is a training that is worth doing once, and using for several graphs."""
    inductive: ClassVar[bool] = False
    """Whether what was trained serves nodes and edges that came later as well."""

    @abstractmethod
    def fit(self, data: TrainingData, config: ModelConfig, progress: ModelProgress) -> Artifact:
        """Fit on the data; the same data, settings and seed give the same artifact.

        Raises:
            TooLittleDataError: there is nothing to learn from.
            TrainingError: the training diverged.
        """

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        """The fitted model's embeddings over another graph of the same nodes.

        The parameters stay; what is made of edges is made anew. Models that are not ``trained``
        are fitted anew instead.

        Args:
            inference: where the layers over all nodes are run; where files hold them, what is
                returned is mapped from these.
        """
        raise NotImplementedError(f"model {self.name!r} is fitted for each graph")


def model_classes() -> dict[str, type[Model]]:
    """Every model in ``nextedge.models``, by name; discovered, never listed."""
    import_modules("nextedge.models")
    return named_subclasses(Model)  # type: ignore[type-abstract]
