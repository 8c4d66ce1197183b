"""Two towers: a query's and a candidate's vector from what is known of each, met by a dot product.

Yi et al.: "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations",
RecSys 2019. Inputs of a tower are a node's features, log degrees, spectral vectors, and the means
of all of these over its neighbours in every relation: a graph network's input without its
training. 256-128-64 with batch norm and ReLU, outputs of unit length, temperature 0.07. What is
to be predicted is taken out of the graph first, as in ``graphsage``, whose preparation it shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nextedge.graph.csr import build_graph
from nextedge.models.artifact import Artifact
from nextedge.models.distributed.collectives import (
    Ranks,
    Share,
    batch_norm,
    current_ranks,
    dropout,
    shared_by,
)
from nextedge.models.inference import IN_PROCESS, Inference, Layer, unit_rows
from nextedge.models.model import Model, ModelProgress, TrainingData
from nextedge.models.neural.graphsage import batch_size
from nextedge.models.neural.losses import log_frequency, sampled_softmax, scores_of_drawn
from nextedge.models.neural.negatives import Negatives
from nextedge.models.neural.node_inputs import (
    GraphSageConfig,
    Inputs,
    Neighborhood,
    Preparation,
    messages_of,
    node_inputs,
)
from nextedge.models.neural.trainer import (
    EdgeBatch,
    Task,
    edge_batches,
    import_torch,
    train,
    training_facts,
)
from nextedge.models.neural.training_graph import Layout, lay_out
from nextedge.models.rankers.ndcg import full_ranking_ndcg
from nextedge.types import FloatArray, IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn


class TwoTowerConfig(GraphSageConfig):
    """Settings of the towers; ``fanout``, ``hidden`` and ``expansion`` are those of graphsage."""

    widths: tuple[int, ...] = (256, 128)
    """Hidden layers of a tower."""
    dimensions: int = Field(64, ge=1)


class TwoTower(Model[TwoTowerConfig]):
    """Query and candidate embeddings from features alone: new nodes need no training."""

    name = "two_tower"
    reason = "people_like_you"
    extra = "train"
    trained = True
    inductive = True

    def fit(self, data: TrainingData, config: TwoTowerConfig, progress: ModelProgress) -> Artifact:
        """Train on the edges taken out, then embed all nodes.

        Raises:
            TooLittleDataError: too few edges.
            TrainingError: the training diverged.
            MissingDependencyError: torch is not installed.
        """
        torch = import_torch(self.name)
        layout = lay_out(self.name, data, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(data.seed)
            module = _module(layout.means, data.relation.self_typed, config)
            task = _task(module, data, layout, config)
            log = train(
                task,
                config.trainer,
                facts=training_facts(self.name, config, data),
                directory=data.directory,
                progress=progress,
            )
        weights = {
            f"weight.{name}": value.detach().cpu().numpy()
            for name, value in module.state_dict().items()
            if "num_batches" not in name
        }
        fitted = Artifact(
            self.name,
            config.model_dump(mode="json"),
            {**weights, **layout.prepared.arrays()},
            {"seed": data.seed, "log": log.to_json(), **shared_by()},
        )
        return self.embed(fitted, data) if current_ranks().first else fitted

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        config = TwoTowerConfig.model_validate(artifact.config)
        messages = messages_of(data, data.graph, config)
        inputs = node_inputs(data, messages, Preparation.of(artifact.arrays), inference)
        weights = {
            name.removeprefix("weight."): values
            for name, values in artifact.arrays.items()
            if name.startswith("weight.")
        }
        own = data.relation.self_typed
        made = {}
        for side in ("query", "candidate"):
            near = Neighborhood.of("query" if own else side, inputs, messages)
            layer = Tower(near, tower_weights(weights, side), len(config.widths))
            made[side] = inference.run(f"embedded-{side}", layer)
        return Artifact(self.name, artifact.config, {**artifact.arrays, **made}, artifact.about)


def _module(inputs: Inputs, own: bool, config: TwoTowerConfig) -> nn.Module:
    from torch import nn

    towers = nn.ModuleDict()
    for side in ("query", "candidate"):
        width = inputs["query" if own else side].shape[1]
        layers: list[nn.Module] = []
        for out in config.widths:
            layers += [nn.Linear(width, out), nn.BatchNorm1d(out), nn.ReLU()]
            layers += [nn.Dropout(config.dropout)]
            width = out
        towers[side] = nn.Sequential(*layers, nn.Linear(width, config.dimensions))
    return towers


@dataclass(frozen=True, eq=False)
class Tower(Layer):
    """Unit vectors of one tower, by NumPy alone.

    Attributes:
        near: the nodes' inputs and what they hear.
        weights: parameters by their names in the tower.
        hidden: number of hidden layers.
    """

    near: Neighborhood
    weights: Mapping[str, np.ndarray]
    hidden: int

    def __len__(self) -> int:
        return len(self.near)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]."""
        weights, x = self.weights, np.concatenate(self.near.rows(start, stop), axis=1)
        for layer in range(self.hidden):
            linear, norm = f"{4 * layer}", f"{4 * layer + 1}"
            scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-5)
            x = x @ weights[f"{linear}.weight"].T + weights[f"{linear}.bias"]
            x = (x - weights[f"{norm}.running_mean"]) * scale + weights[f"{norm}.bias"]
            x = np.maximum(x, 0)
        last = f"{4 * self.hidden}"
        return unit_rows(x @ weights[f"{last}.weight"].T + weights[f"{last}.bias"])


def tower_weights(weights: Mapping[str, np.ndarray], side: str) -> dict[str, np.ndarray]:
    """Parameters of one of the towers."""
    return {
        name.removeprefix(f"{side}."): values
        for name, values in weights.items()
        if name.startswith(f"{side}.")
    }


def _train_tower(layers: Any, x: Tensor, share: Share, ranks: Ranks) -> Tensor:
    """Outputs [n, d] of the share's rows, as of one process that computes them all."""
    from torch import nn

    for layer in layers:
        if isinstance(layer, nn.BatchNorm1d):
            x = batch_norm(layer, x, ranks)
        elif isinstance(layer, nn.Dropout):
            x = dropout(x, layer.p, share, training=layer.training)
        else:
            x = layer(x)
    return x


def _task(module: Any, data: TrainingData, layout: Layout, config: TwoTowerConfig) -> Task:
    import torch
    from torch.nn.functional import normalize

    own, ranks, training = data.relation.self_typed, current_ranks(), layout.training
    x = {
        side: torch.from_numpy(np.asarray(layout.means["query" if own else side]))
        for side in ("query", "candidate")
    }
    size = batch_size(config.trainer.batch, len(training[0]))
    frequency = log_frequency(training[1], data.graph.targets)
    negatives = Negatives(data.graph, config.curriculum)

    def of(side: str, ids: IndexArray, share: Share) -> Tensor:
        rows = x[side][torch.from_numpy(ids[share.rows].astype(np.int64))]
        return normalize(_train_tower(module[side], rows, share, ranks), dim=1)

    def loss(batch: EdgeBatch, done: float) -> Tensor:
        seed, source, target = batch
        drawn = negatives.draw(source, seed, done, embed_now, data.seed)
        share = ranks.share(len(source))
        query = of("query", source, share)
        ids = np.concatenate((target, drawn.ravel()))
        both = ranks.whole(of("candidate", ids, ranks.share(len(ids))), ranks.share(len(ids)))
        others = both[len(target) :]
        if drawn.ndim == 2:
            others = others.reshape(*drawn.shape, -1)[share.rows]
            drawn = drawn[share.rows]
        return sampled_softmax(
            query,
            both[: len(target)],
            torch.from_numpy(source.astype(np.int64)),
            torch.from_numpy(target.astype(np.int64)),
            frequency[torch.from_numpy(target.astype(np.int64))],
            temperature=config.temperature,
            extra=scores_of_drawn(query, others, drawn),
            share=share,
        )

    def embed_now() -> tuple[FloatArray, FloatArray]:
        weights = {name: value.detach().numpy() for name, value in module.state_dict().items()}
        query, candidate = (
            IN_PROCESS.run(
                side,
                Tower(
                    Neighborhood(x[side].numpy(), ()),
                    tower_weights(weights, side),
                    len(config.widths),
                ),
            )
            for side in ("query", "candidate")
        )
        return query, candidate

    def validate() -> float:
        kept = layout.kept
        positives = build_graph(*layout.validation, len(data.graph), data.graph.targets)
        return full_ranking_ndcg(*embed_now(), kept, positives, own=own, seed=data.seed)

    return Task(
        module, edge_batches(training, size, data.seed), len(training[0]) // size, loss, validate
    )
