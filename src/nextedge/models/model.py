"""The contract of a retrieval model: it is fitted on a graph and node features, and scores pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from nextedge.config import Configurable, Settings
from nextedge.discovery import discover
from nextedge.errors import TrainingError
from nextedge.graph.csr import Graph
from nextedge.models.artifact import Artifact
from nextedge.models.inference import IN_PROCESS, Inference
from nextedge.types import CONNECTS, ENGAGES, FloatArray, Relation

ModelProgress = Callable[[str, int, int], None]
"""Takes the name of the work, the amount done, and the whole amount."""


class ModelConfig(Settings):
    """Settings of a model."""


Config = TypeVar("Config", bound=ModelConfig)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The input of a model.

    Attributes:
        relation: whose edges are predicted.
        graph: its edges as of the cut, query × candidate.
        query_features: float32[Q, F] of the queries, or None; columns are normalised.
        candidate_features: float32[N, G] of the candidates, or None (the same array as
            ``query_features`` where the relation joins nodes of one kind).
        others: further graphs by name, e.g. ``connections`` (query × query).
        seed: of all random numbers.
        directory: folder for checkpoints, or None to keep none; processes that train together
            share it.
        partitioned: whether each of these processes stores a part of the graph, where the model
            can.
    """

    relation: Relation
    graph: Graph
    query_features: FloatArray | None = None
    candidate_features: FloatArray | None = None
    others: dict[str, Graph] = field(default_factory=dict)
    seed: int = 0
    directory: Path | None = None
    partitioned: bool = False


class Model(ABC, Configurable[Config], Generic[Config]):
    """A retrieval model, which is a candidate source of the same name too.

    A new model is one file in this package, or in one that offers it by the entry point group
    ``nextedge.models``: a subclass with a ``name``, whose type parameter is the class of its
    settings. Its artifact has embeddings (``query``, ``candidate``), candidate similarities
    (``similar_indptr``, ``similar_indices``, ``similar_values``), or both. An array ``decay`` of
    one number makes each edge of a history count that much less than the next later one.
    """

    name: ClassVar[str]
    relations: ClassVar[tuple[Relation, ...]] = (CONNECTS, ENGAGES)
    """The relations whose candidates it recommends."""
    reason: ClassVar[str]
    """Code of the reason that its recommendations get."""
    enabled: ClassVar[bool] = False
    """Whether it is fitted where the configuration does not name it."""
    needs_times: ClassVar[bool] = False
    """Whether it needs the times of edges."""
    extra: ClassVar[str | None] = None
    """The extra of NextEdge that fitting needs, or None."""
    trained: ClassVar[bool] = False
    """Whether it is trained once for several graphs, because that takes long."""
    inductive: ClassVar[bool] = False
    """Whether the trained model embeds nodes and edges that are newer than its training."""

    @abstractmethod
    def fit(self, data: TrainingData, config: Config, progress: ModelProgress) -> Artifact:
        """Fit on the data; the same data, settings and seed give the same artifact.

        Raises:
            TooLittleDataError: there is nothing to learn from.
            TrainingError: the training diverged.
        """

    def learnable(self, data: TrainingData) -> Graph:
        """The graph of the data.

        Raises:
            TrainingError: it has no edge.
        """
        if data.graph.edges == 0:
            raise TrainingError(
                f"{self.name}: the graph has no edge to learn from; give it interactions or "
                "connections"
            )
        return data.graph

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        """Return the fitted model's embeddings over another graph of the same nodes.

        The parameters stay; everything that depends on edges is computed again. Only models that
        are ``trained`` have this; the others are fitted again.

        Args:
            inference: runs the layers over all nodes; where it writes files, the arrays of the
                result are mapped from these.
        """
        raise NotImplementedError(f"model {self.name!r} is fitted for each graph")


def model_classes() -> dict[str, type[Model[Any]]]:
    """Every model by name: those below ``nextedge.models`` and those of plug-ins."""
    return discover(Model, "nextedge.models", "nextedge.models")  # type: ignore[type-abstract]
