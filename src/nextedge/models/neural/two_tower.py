"""Two towers: a vector of the query and one of the candidate, from features; their dot product.

Yi et al.: "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations",
RecSys 2019, section 3. A tower reads a node's features, log degrees, spectral vectors, and the
means of all of these over its neighbours in every relation: the input of a graph network without
its training. 256-128-64 with batch norm and ReLU, outputs of unit length, temperature 0.07. It
shares the edges to predict and the inputs with ``graphsage``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nextedge.models.artifact import Artifact, arrays_below
from nextedge.models.distributed.collectives import Ranks, Share, batch_norm, current_ranks, dropout
from nextedge.models.inference import IN_PROCESS, Inference, Layer, unit_rows
from nextedge.models.model import TrainingData
from nextedge.models.neural.full_ranking import validation_of
from nextedge.models.neural.graphsage import batch_size
from nextedge.models.neural.losses import log_frequency, negative_scores
from nextedge.models.neural.negatives import Negatives
from nextedge.models.neural.node_inputs import (
    GraphSageConfig,
    Inputs,
    InputTransform,
    Neighborhood,
    edge_loss_of,
    messages_of,
    node_inputs,
)
from nextedge.models.neural.trainer import (
    EdgeBatch,
    GradientModel,
    Task,
    edge_batches,
    stored_parameters,
)
from nextedge.models.neural.training_graph import training_graph
from nextedge.models.pytorch import as_index, parameter_arrays
from nextedge.types import FloatArray, IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn

_SIDES = ("query", "candidate")


class TwoTowerConfig(GraphSageConfig):
    """Settings of the towers; ``fanout``, ``hidden`` and ``expansion`` are those of graphsage."""

    widths: tuple[int, ...] = (256, 128)
    """Hidden layers of a tower."""
    dimensions: int = Field(64, ge=1)


class TwoTower(GradientModel[TwoTowerConfig]):
    """Query and candidate embeddings from features alone: new nodes need no training."""

    name = "two_tower"
    reason = "people_like_you"
    inductive = True

    def task(self, data: TrainingData, config: TwoTowerConfig) -> Task:
        return _task(data, config)

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        config = TwoTowerConfig.model_validate(artifact.config)
        messages = messages_of(data, data.graph, config)
        inputs = node_inputs(data, messages, InputTransform.of(artifact.arrays), inference)
        arrays = {}
        for side in _SIDES:
            kind = "query" if data.relation.self_typed else side
            neighborhood = Neighborhood.of(kind, inputs, messages)
            weights = arrays_below(artifact.arrays, f"weight.{side}.")
            layer = Tower(neighborhood, weights, len(config.widths))
            arrays[side] = inference.run(f"embedded-{side}", layer)
        return Artifact(self.name, artifact.config, {**artifact.arrays, **arrays}, artifact.about)


def _module(inputs: Inputs, config: TwoTowerConfig) -> nn.Module:
    from torch import nn

    towers = nn.ModuleDict()
    for side, x in inputs.items():
        width = x.shape[1]
        layers: list[nn.Module] = []
        for out in config.widths:
            layers += [nn.Linear(width, out), nn.BatchNorm1d(out), nn.ReLU()]
            layers.append(nn.Dropout(config.dropout))
            width = out
        towers[side] = nn.Sequential(*layers, nn.Linear(width, config.dimensions))
    return towers


@dataclass(frozen=True, eq=False)
class Tower(Layer):
    """Unit vectors of one tower, by NumPy alone.

    Attributes:
        neighborhood: inputs of the nodes and of their neighbours.
        weights: parameters by their names in the tower.
        hidden: number of hidden layers.
    """

    neighborhood: Neighborhood
    weights: Mapping[str, np.ndarray]
    hidden: int

    def __len__(self) -> int:
        return len(self.neighborhood)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]."""
        weights, x = self.weights, np.concatenate(self.neighborhood.rows(start, stop), axis=1)
        # A hidden layer is four modules of ``_module``, whose numbers name the parameters.
        for layer in range(self.hidden):
            linear, norm = f"{4 * layer}", f"{4 * layer + 1}"
            # 1e-5 is the eps of PyTorch's batch norm.
            scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-5)
            x = x @ weights[f"{linear}.weight"].T + weights[f"{linear}.bias"]
            x = (x - weights[f"{norm}.running_mean"]) * scale + weights[f"{norm}.bias"]
            x = np.maximum(x, 0)
        last = f"{4 * self.hidden}"
        return unit_rows(x @ weights[f"{last}.weight"].T + weights[f"{last}.bias"])


def _train_tower(layers: Any, x: Tensor, share: Share, ranks: Ranks) -> Tensor:
    """Outputs [n, d] of the rows of a share, equal to those of one process that computes all."""
    from torch import nn

    for layer in layers:
        if isinstance(layer, nn.BatchNorm1d):
            x = batch_norm(layer, x, ranks)
        elif isinstance(layer, nn.Dropout):
            x = dropout(x, layer.p, share, training=layer.training)
        else:
            x = layer(x)
    return x


def _task(data: TrainingData, config: TwoTowerConfig) -> Task:
    import torch
    from torch.nn.functional import normalize

    graph = training_graph(TwoTower.name, data, config)
    self_typed, edges = data.relation.self_typed, len(graph.training[0])
    inputs = {side: graph.means["query" if self_typed else side] for side in _SIDES}
    module: Any = _module(inputs, config)
    ranks = current_ranks()
    x = {side: torch.from_numpy(np.asarray(values)) for side, values in inputs.items()}
    size = batch_size(config.trainer.batch, edges)
    frequency = log_frequency(graph.training[1], data.graph.targets)
    negatives = Negatives(data.graph, config.curriculum)
    loss_of = edge_loss_of(config)

    def of(side: str, ids: IndexArray, share: Share) -> Tensor:
        rows = x[side][as_index(ids[share.rows])]
        return normalize(_train_tower(module[side], rows, share, ranks), dim=1)

    def loss(batch: EdgeBatch, done: float) -> Tensor:
        seed, source, target = batch
        sampled = negatives.draw(source, seed, done, embed_now, data.seed)
        share = ranks.share(len(source))
        query = of("query", source, share)
        ids = np.concatenate((target, sampled.ravel()))
        # One pass for positives and negatives: batch norm has the statistics of both.
        candidate_share = ranks.share(len(ids))
        vectors = ranks.whole(of("candidate", ids, candidate_share), candidate_share)
        candidate, others = vectors[: len(target)], vectors[len(target) :]
        if sampled.ndim == 2:
            others = others.reshape(*sampled.shape, -1)[share.rows]
            sampled = sampled[share.rows]
        extra, positive = negative_scores(query, others, sampled), as_index(target)
        return loss_of(query, candidate, positive, frequency[positive], extra=extra, share=share)

    def embed_now() -> tuple[FloatArray, FloatArray]:
        weights, vectors = parameter_arrays(module), []
        for side in _SIDES:
            # These inputs have the means over the neighbours already.
            neighborhood = Neighborhood(x[side].numpy(), ())
            tower = Tower(neighborhood, arrays_below(weights, f"{side}."), len(config.widths))
            vectors.append(IN_PROCESS.run(side, tower))
        return vectors[0], vectors[1]

    def arrays() -> dict[str, np.ndarray]:
        stored = stored_parameters(module)
        # Batch norm counts its batches, which inference never reads.
        stored = {name: values for name, values in stored.items() if "num_batches" not in name}
        return {**stored, **graph.transform.arrays()}

    batches = edge_batches(graph.training, size, data.seed)
    validate = validation_of(data, graph.graph, graph.validation, embed_now)
    return Task(module, batches, edges // size, loss, validate, arrays)
