"""LightGCN: an embedding for every node, smoothed over the graph; and its contrastive form.

He, Deng, Wang, Li, Zhang, Wang: "LightGCN", SIGIR 2020: ``E = mean_l (D^-½ A D^-½)^l E_0`` with
nothing learned but E_0, and the BPR loss. With ``contrast`` above 0, two noisy views of every
node of a batch are pulled together against all others (SimGCL: Yu et al., "Are Graph
Augmentations Necessary?", SIGIR 2022, section 3). Without layers it is matrix factorisation:
see ``bpr``. Cost: every batch smooths all nodes, O(layers · E · d); large batches pay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nextedge.errors import TooLittleDataError
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.artifact import Artifact
from nextedge.models.distributed.collectives import Share, current_ranks, shared_by
from nextedge.models.inference import IN_PROCESS, Inference, Layer, unit_rows
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.models.neural.losses import bpr, log_frequency, sampled_softmax, scores_of_drawn
from nextedge.models.neural.negatives import CurriculumConfig, Negatives
from nextedge.models.neural.trainer import (
    EdgeBatch,
    Task,
    TrainerConfig,
    edge_batches,
    import_torch,
    train,
    training_facts,
)
from nextedge.models.rankers.ndcg import full_ranking_ndcg
from nextedge.models.spectral import Normalised, normalised_adjacency
from nextedge.types import FloatArray, IndexArray

if TYPE_CHECKING:
    from torch import Tensor

_FEWEST = 50


class LightGcnConfig(ModelConfig):
    """Settings of the embeddings and their training."""

    dimensions: int = Field(64, ge=1)
    layers: int = Field(3, ge=0)
    loss: Literal["bpr", "softmax"] = "softmax"
    temperature: float = Field(0.2, gt=0)
    """Of the softmax loss, over embeddings of unit length."""
    penalty: float = Field(1e-4, ge=0)
    """L2 penalty on the first embeddings of a batch's nodes."""
    contrast: float = Field(0.0, ge=0)
    """Weight of the contrastive loss; 0 = off."""
    noise: float = Field(0.1, gt=0)
    """Length of the noise that is added in each layer of a contrasted view."""
    validation_share: float = Field(0.05, gt=0, lt=0.5)
    trainer: TrainerConfig = TrainerConfig(learning_rate=5e-3, epochs=30, weight_decay=0.0)
    curriculum: CurriculumConfig = CurriculumConfig(negatives=256)


class LightGcn(Model[LightGcnConfig]):
    """Query and candidate embeddings over the whole graph."""

    name = "lightgcn"
    reason = "people_like_you"
    extra = "train"
    trained = True

    def fit(self, data: TrainingData, config: LightGcnConfig, progress: ModelProgress) -> Artifact:
        """Train by gradients; the same seed gives the same embeddings.

        Raises:
            TooLittleDataError: too few edges.
            TrainingError: the training diverged.
            MissingDependencyError: torch is not installed.
        """
        torch = import_torch(self.name)
        kept, training, validation = _split(data, config)
        if len(training[0]) < _FEWEST:
            raise TooLittleDataError(
                f"{self.name}: {len(training[0])} edges to learn from, expected {_FEWEST} or more"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(data.seed)
            task, module = _task(data, kept, training, validation, config)
            log = train(
                task,
                config.trainer,
                facts=training_facts(self.name, config, data),
                directory=data.directory,
                progress=progress,
            )
        first = module.weight.detach().cpu().numpy()
        fitted = Artifact(
            self.name,
            config.model_dump(mode="json"),
            {"first": first},
            {"seed": data.seed, "log": log.to_json(), **shared_by()},
        )
        return self.embed(fitted, data) if current_ranks().first else fitted

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        layers, first = int(artifact.config["layers"]), np.asarray(artifact.arrays["first"])
        unit, own = artifact.config["loss"] == "softmax", data.relation.self_typed
        query, candidate = smoothed(
            data.graph, first, layers, own=own, unit=unit, inference=inference
        )
        made = {"first": first, "query": query, "candidate": candidate}
        return Artifact(self.name, artifact.config, made, artifact.about)


def _split(
    data: TrainingData, config: LightGcnConfig
) -> tuple[Graph, tuple[IndexArray, IndexArray], tuple[IndexArray, IndexArray]]:
    """The graph to smooth over while training, its edges, and those that decide when to stop."""
    graph = data.graph
    source = np.repeat(np.arange(len(graph), dtype=np.int32), graph.degree)
    target = np.asarray(graph.indices)
    low, high = source.astype(np.int64), target.astype(np.int64)
    if data.relation.symmetric:  # both directions of a pair lie on one side of the cut
        low, high = np.minimum(low, high), np.maximum(low, high)
    mixed = (low * 0x9E3779B1 + high * 0x85EBCA77 + data.seed) % 1_000_003
    held = mixed < config.validation_share * 1_000_003
    kept = build_graph(source[~held], target[~held], len(graph), graph.targets)
    return kept, (source[~held], target[~held]), (source[held], target[held])


def _adjacency(graph: Graph, *, own: bool) -> Any:
    """Normalised square adjacency over all nodes, queries first."""
    from scipy import sparse

    normal = normalised_adjacency(graph)
    return normal if own else sparse.bmat([[None, normal], [normal.T, None]]).tocsr()


@dataclass(frozen=True, eq=False)
class Smoothed(Layer):
    """What each node's neighbours have, weighted by the normalised adjacency.

    Attributes:
        adjacency: N nodes by the M that they hear.
        x: float32[M, d].
    """

    adjacency: Normalised
    x: FloatArray

    def __len__(self) -> int:
        return len(self.adjacency)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]."""
        return np.asarray(self.adjacency.matrix(start, stop) @ self.x, np.float32)


@dataclass(frozen=True, eq=False)
class LayerMean(Layer):
    """The mean over layers, float32[N, d] each; of unit length where that is wanted."""

    layers: tuple[FloatArray, ...]
    unit: bool

    def __len__(self) -> int:
        return len(self.layers[0])

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]."""
        total = self.layers[0][start:stop].copy()
        for layer in self.layers[1:]:
            total += layer[start:stop]
        total /= np.float32(len(self.layers))
        return unit_rows(total) if self.unit else total


def smoothed(
    graph: Graph,
    first: FloatArray,
    layers: int,
    *,
    own: bool,
    unit: bool,
    inference: Inference = IN_PROCESS,
) -> tuple[FloatArray, FloatArray]:
    """float32[Q, d] of queries and float32[N, d] of candidates: means over ever wider layers.

    Args:
        first: float32[nodes, d], the queries' first unless ``own``, which has one vector a node.
        own: whether queries and candidates are the same nodes.
        unit: whether vectors are brought to unit length.
    """
    queries = len(graph)
    kinds = {"query": first[:queries]} | ({} if own else {"candidate": first[queries:]})
    found = {kind: [values] for kind, values in kinds.items()}
    if layers:
        adjacency = {"query": Normalised.of(graph)}
        if not own:
            adjacency["candidate"] = Normalised.reversed_of(graph)
        heard = {"query": "query"} if own else {"query": "candidate", "candidate": "query"}
        for number in range(1, layers + 1):
            x = {kind: parts[-1] for kind, parts in found.items()}
            for kind, other in heard.items():
                layer = Smoothed(adjacency[kind], x[other])
                found[kind].append(inference.run(f"layer-{number}-{kind}", layer))
    made = {
        kind: inference.run(f"embedded-{kind}", LayerMean(tuple(parts), unit))
        for kind, parts in found.items()
    }
    return made["query"], made["query" if own else "candidate"]


def _task(
    data: TrainingData,
    kept: Graph,
    training: tuple[IndexArray, IndexArray],
    validation: tuple[IndexArray, IndexArray],
    config: LightGcnConfig,
) -> tuple[Task, Any]:
    import torch
    from torch.nn.functional import normalize

    own, queries = data.relation.self_typed, len(data.graph)
    nodes = queries if own else queries + data.graph.targets
    offset = 0 if own else queries
    module = torch.nn.Embedding(nodes, config.dimensions)
    torch.nn.init.normal_(module.weight, std=0.1)
    matrix = _adjacency(kept, own=own).tocoo()
    places = torch.from_numpy(np.stack((matrix.row, matrix.col)).astype(np.int64))
    adjacency = torch.sparse_coo_tensor(
        places,
        torch.from_numpy(matrix.data.astype(np.float32)),
        matrix.shape,
        check_invariants=True,
        is_coalesced=True,
    )
    size = min(config.trainer.batch, max(256, len(training[0]) // 32), len(training[0]))
    frequency = log_frequency(training[1], data.graph.targets)
    negatives = Negatives(data.graph, config.curriculum)

    ranks = current_ranks()
    columns = ranks.share(config.dimensions)

    def smooth(noise: float = 0.0) -> Tensor:
        """Vectors of all nodes, of the columns that this process computes: none needs another's."""
        layer = total = module.weight[:, columns.rows]
        for _ in range(config.layers):
            layer = torch.sparse.mm(adjacency, layer)
            if noise:
                shift = normalize(torch.rand_like(module.weight), dim=1) * noise
                layer = layer + torch.sign(layer) * shift[:, columns.rows]
            total = total + layer
        return total / (config.layers + 1)

    def of(vectors: Tensor, nodes: Tensor) -> Tensor:
        """Whole vectors [n, d] of some nodes."""
        return ranks.whole(vectors[nodes], columns, dim=1)

    def loss(batch: EdgeBatch, done: float) -> Tensor:
        seed, source, target = batch
        drawn = negatives.draw(source, seed, done, embed_now, data.seed)
        vectors = smooth()
        left = torch.from_numpy(source.astype(np.int64))
        right = torch.from_numpy(target.astype(np.int64))
        other = torch.from_numpy(drawn.ravel().astype(np.int64))
        share = ranks.share(len(left))
        query = of(vectors, left)[share.rows]
        candidate, extra = of(vectors, right + offset), of(vectors, other + offset)
        if drawn.ndim == 2:
            extra = extra.reshape(*drawn.shape, -1)[share.rows].flatten(0, 1)
            drawn = drawn[share.rows]
        if config.loss == "bpr":
            drawn_score = scores_of_drawn(query, extra, drawn)
            assert drawn_score is not None, "the BPR loss needs negatives that are drawn"
            value = bpr((query * candidate[share.rows]).sum(dim=1), drawn_score) * share.part
        else:
            query, candidate = normalize(query, dim=1), normalize(candidate, dim=1)
            shared = scores_of_drawn(query, normalize(extra, dim=1), drawn)
            value = sampled_softmax(
                query,
                candidate,
                left,
                right,
                frequency[right],
                temperature=config.temperature,
                extra=shared,
                share=share,
            )
        first = module.weight[:, columns.rows][torch.cat((left, right + offset))]
        value = value + config.penalty * first.pow(2).sum() / len(left)
        if config.contrast:
            nodes = torch.unique(torch.cat((left, right + offset)))
            one, other_view = (of(smooth(config.noise), nodes) for _ in range(2))
            value = value + config.contrast * contrastive(one, other_view, ranks.share(len(nodes)))
        return value

    def embed_now() -> tuple[FloatArray, FloatArray]:
        first = module.weight.detach().numpy()
        return smoothed(kept, first, config.layers, own=own, unit=config.loss == "softmax")

    def validate() -> float:
        positives = build_graph(*validation, queries, data.graph.targets)
        return full_ranking_ndcg(*embed_now(), kept, positives, own=own, seed=data.seed)

    return Task(
        module, edge_batches(training, size, data.seed), len(training[0]) // size, loss, validate
    ), module


def contrastive(left: Tensor, right: Tensor, share: Share, temperature: float = 0.2) -> Tensor:
    """The share's part of InfoNCE between two views [n, d] (van den Oord et al., 2018)."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    first, second = normalize(left, dim=1), normalize(right, dim=1)
    goal = torch.arange(len(left))[share.rows]
    return cross_entropy(first[share.rows] @ second.T / temperature, goal) * share.part
