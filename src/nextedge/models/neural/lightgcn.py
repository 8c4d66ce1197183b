"""LightGCN: an embedding for every node, smoothed over the graph; and its contrastive form.

He, Deng, Wang, Li, Zhang, Wang: "LightGCN", SIGIR 2020, section 3.1:
``E = mean_l (D^-½ A D^-½)^l E_0``, where only E_0 is learned, and the BPR loss (section 3.3). With
``contrast`` above 0, the loss pulls two noisy views of every node of a batch together against all
other nodes (SimGCL: Yu et al., "Are Graph Augmentations Necessary?", SIGIR 2022, section 3).
Without layers it is matrix factorisation: see ``bpr``. Cost: every batch smooths all nodes,
O(layers · E · d), so large batches pay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from pydantic import Field

from nextedge.errors import TooLittleDataError
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.artifact import Artifact
from nextedge.models.distributed.collectives import Share, current_ranks
from nextedge.models.inference import IN_PROCESS, Inference, Layer, unit_rows
from nextedge.models.model import ModelConfig, TrainingData
from nextedge.models.neural.full_ranking import Edges, validation_of
from nextedge.models.neural.losses import EdgeLoss, bpr, edge_loss, log_frequency, negative_scores
from nextedge.models.neural.negatives import CurriculumConfig, Negatives
from nextedge.models.neural.trainer import (
    EdgeBatch,
    GradientModel,
    Task,
    TrainerConfig,
    edge_batches,
)
from nextedge.models.pytorch import as_index
from nextedge.models.spectral import Normalised, normalised_adjacency
from nextedge.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

_MIN_EDGES = 50
GraphLoss = Literal["bpr", "softmax", "bce", "triplet"]
"""BPR, or one of ``losses.EdgeLoss``, where ``softmax`` is ``in_batch``."""


class LightGcnConfig(ModelConfig):
    """Settings of the embeddings and their training."""

    dimensions: int = Field(64, ge=1)
    layers: int = Field(3, ge=0)
    loss: GraphLoss = "softmax"
    temperature: float = Field(0.2, gt=0)
    """Divides cosines in the softmax loss, dot products in ``bce``."""
    margin: float = Field(0.2, gt=0)
    """Of the triplet loss: cosine by which an edge shall be above its hardest negative."""
    penalty: float = Field(1e-4, ge=0)
    """L2 penalty on E_0 of the nodes of a batch."""
    contrast: float = Field(0.0, ge=0)
    """Weight of the contrastive loss; 0 turns it off."""
    noise: float = Field(0.1, gt=0)
    """Length of the noise that each layer of a contrasted view adds."""
    validation_share: float = Field(0.05, gt=0, lt=0.5)
    trainer: TrainerConfig = TrainerConfig(learning_rate=5e-3, epochs=30, weight_decay=0.0)
    curriculum: CurriculumConfig = CurriculumConfig(negatives=256)

    @property
    def unit_length(self) -> bool:
        """Whether embeddings have unit length: these losses compare cosines."""
        return self.loss in ("softmax", "triplet")


class LightGcn(GradientModel[LightGcnConfig]):
    """Query and candidate embeddings over the whole graph."""

    name = "lightgcn"
    reason = "people_like_you"

    def task(self, data: TrainingData, config: LightGcnConfig) -> Task:
        return _task(data, config, self.name)

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        config = cast(LightGcnConfig, self.config_class.model_validate(artifact.config))
        first = np.asarray(artifact.arrays["first"])
        query, candidate = smoothed(data, data.graph, first, config, inference)
        arrays = {"first": first, "query": query, "candidate": candidate}
        return Artifact(self.name, artifact.config, arrays, artifact.about)


def _split(data: TrainingData, config: LightGcnConfig) -> tuple[Graph, Edges, Edges]:
    """The graph to smooth over while training, its edges, and those that decide when to stop."""
    graph = data.graph
    source = np.repeat(np.arange(len(graph), dtype=np.int32), graph.degree)
    target = np.asarray(graph.indices)
    low, high = source.astype(np.int64), target.astype(np.int64)
    if data.relation.symmetric:  # both directions of a pair lie on one side of the cut
        low, high = np.minimum(low, high), np.maximum(low, high)
    hashed = (low * 0x9E3779B1 + high * 0x85EBCA77 + data.seed) % 1_000_003
    validates = hashed < config.validation_share * 1_000_003
    training = source[~validates], target[~validates]
    validation = source[validates], target[validates]
    return build_graph(*training, len(graph), graph.targets), training, validation


def _adjacency(graph: Graph, *, self_typed: bool) -> Tensor:
    """Normalised square adjacency over all nodes, queries first; a sparse tensor."""
    import torch
    from scipy import sparse

    normal = normalised_adjacency(graph)
    square = normal if self_typed else sparse.bmat([[None, normal], [normal.T, None]]).tocsr()
    matrix = square.tocoo()
    # Rows of a CSR have each entry once and in order: PyTorch need not sort them.
    return torch.sparse_coo_tensor(
        torch.from_numpy(np.stack((matrix.row, matrix.col)).astype(np.int64)),
        torch.from_numpy(matrix.data.astype(np.float32)),
        matrix.shape,
        check_invariants=True,
        is_coalesced=True,
    )


@dataclass(frozen=True, eq=False)
class Smoothed(Layer):
    """Sums of the neighbours' vectors, weighted by the normalised adjacency.

    Attributes:
        adjacency: N nodes by M neighbours.
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
    """The mean over layers, float32[N, d] each, with ``unit_length`` if so wanted."""

    layers: tuple[FloatArray, ...]
    unit_length: bool

    def __len__(self) -> int:
        return len(self.layers[0])

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]."""
        # A slice is a view: the sum would overwrite the first layer.
        total = self.layers[0][start:stop].copy()
        for layer in self.layers[1:]:
            total += layer[start:stop]
        total /= np.float32(len(self.layers))
        return unit_rows(total) if self.unit_length else total


def smoothed(
    data: TrainingData,
    graph: Graph,
    first: FloatArray,
    config: LightGcnConfig,
    inference: Inference = IN_PROCESS,
) -> tuple[FloatArray, FloatArray]:
    """float32[Q, d] of queries and float32[N, d] of candidates: means over all layers.

    Args:
        graph: to smooth over.
        first: float32[nodes, d], the vectors of the queries first; queries and candidates are the
            same nodes where the relation is self-typed.
    """
    queries, self_typed = len(graph), data.relation.self_typed
    by_kind = {"query": [first[:queries]]}
    adjacency, neighbors_of = {"query": Normalised.of(graph)}, {"query": "query"}
    if not self_typed:
        by_kind["candidate"] = [first[queries:]]
        neighbors_of = {"query": "candidate", "candidate": "query"}
        if config.layers:  # the reverse of a graph costs a pass over its edges
            adjacency["candidate"] = Normalised.reversed_of(graph)
    for number in range(1, config.layers + 1):
        x = {kind: parts[-1] for kind, parts in by_kind.items()}
        for kind, other in neighbors_of.items():
            layer = Smoothed(adjacency[kind], x[other])
            by_kind[kind].append(inference.run(f"layer-{number}-{kind}", layer))
    vectors = {
        kind: inference.run(f"embedded-{kind}", LayerMean(tuple(parts), config.unit_length))
        for kind, parts in by_kind.items()
    }
    return vectors["query"], vectors["query" if self_typed else "candidate"]


def _task(data: TrainingData, config: LightGcnConfig, name: str) -> Task:
    import torch
    from torch.nn.functional import normalize

    message_graph, training, validation = _split(data, config)
    edges = len(training[0])
    if edges < _MIN_EDGES:
        raise TooLittleDataError(
            f"{name}: {edges} edges to learn from, expected {_MIN_EDGES} or more"
        )
    self_typed, queries = data.relation.self_typed, len(data.graph)
    offset = 0 if self_typed else queries
    nodes = queries if self_typed else queries + data.graph.targets
    module = torch.nn.Embedding(nodes, config.dimensions)
    torch.nn.init.normal_(module.weight, std=0.1)
    adjacency = _adjacency(message_graph, self_typed=self_typed)
    # A network that takes few steps an epoch learns nothing (docs/log.md).
    size = min(config.trainer.batch, max(256, edges // 32), edges)
    frequency = log_frequency(training[1], data.graph.targets)
    negatives = Negatives(data.graph, config.curriculum)
    ranks = current_ranks()
    # Smoothing never mixes columns, so each process smooths its share of them.
    columns = ranks.share(config.dimensions)

    def smooth(noise: float = 0.0) -> Tensor:
        """Vectors of all nodes, this process's columns of them."""
        layer = total = module.weight[:, columns.rows]
        for _ in range(config.layers):
            layer = torch.sparse.mm(adjacency, layer)
            if noise:
                # Every process draws all columns, which leaves the generators of all in one state.
                shift = normalize(torch.rand_like(module.weight), dim=1) * noise
                layer = layer + torch.sign(layer) * shift[:, columns.rows]
            total = total + layer
        return total / (config.layers + 1)

    def of(vectors: Tensor, nodes: Tensor) -> Tensor:
        """Whole vectors [n, d] of some nodes."""
        return ranks.whole(vectors[nodes], columns, dim=1)

    def loss(batch: EdgeBatch, done: float) -> Tensor:
        seed, source, target = batch
        sampled = negatives.draw(source, seed, done, embed_now, data.seed)
        vectors = smooth()
        left, right, other = as_index(source), as_index(target), as_index(sampled.ravel())
        share = ranks.share(len(left))
        query = of(vectors, left)[share.rows]
        candidate, extra = of(vectors, right + offset), of(vectors, other + offset)
        if sampled.ndim == 2:
            extra = extra.reshape(*sampled.shape, -1)[share.rows].flatten(0, 1)
            sampled = sampled[share.rows]
        if config.unit_length:
            query, candidate = normalize(query, dim=1), normalize(candidate, dim=1)
            extra = normalize(extra, dim=1)
        negative = negative_scores(query, extra, sampled)
        if config.loss == "bpr":
            assert negative is not None, "the BPR loss needs sampled negatives"
            value = bpr((query * candidate[share.rows]).sum(dim=1), negative) * share.part
        else:
            kind: EdgeLoss = "in_batch" if config.loss == "softmax" else config.loss
            scales = {"temperature": config.temperature, "margin": config.margin}
            value = edge_loss(
                kind,
                query,
                candidate,
                right,
                frequency[right],
                **scales,
                extra=negative,
                share=share,
            )
        # Each process has its columns of E_0: their penalties add up to the whole one.
        first = module.weight[:, columns.rows][torch.cat((left, right + offset))]
        value = value + config.penalty * first.pow(2).sum() / len(left)
        if config.contrast:
            # A node that is twice in a batch would be its own negative.
            nodes = torch.unique(torch.cat((left, right + offset)))
            one_view, other_view = (of(smooth(config.noise), nodes) for _ in range(2))
            contrast = contrastive(one_view, other_view, ranks.share(len(nodes)))
            value = value + config.contrast * contrast
        return value

    def embed_now() -> tuple[FloatArray, FloatArray]:
        return smoothed(data, message_graph, module.weight.detach().numpy(), config)

    return Task(
        module,
        edge_batches(training, size, data.seed),
        edges // size,
        loss,
        validation_of(data, message_graph, validation, embed_now),
        arrays=lambda: {"first": module.weight.detach().cpu().numpy()},
    )


def contrastive(left: Tensor, right: Tensor, share: Share, temperature: float = 0.2) -> Tensor:
    """The share's part of InfoNCE between two views [n, d] (van den Oord et al., 2018)."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    first, second = normalize(left, dim=1), normalize(right, dim=1)
    goal = torch.arange(len(left))[share.rows]
    return cross_entropy(first[share.rows] @ second.T / temperature, goal) * share.part
