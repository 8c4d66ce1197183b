"""A sequential tower: self-attention over a query's latest candidates, and a candidate vector.

Kang, McAuley: "Self-Attentive Sequential Recommendation", ICDM 2018, section 3: blocks of causal
self-attention over the last ``window`` candidates, tied input and output vectors. The loss is a
softmax over candidates instead of one negative (Klenitskiy, Vasilev: "Turning Dross Into Gold
Loss", RecSys 2023), over all of them where they are few. The vector of a candidate is its embedding
plus a linear map of its features (categories, tags, texts); a candidate that training never saw
has only the latter. The features of a query are added to its state, and are the state of a query
without history. Cost of an epoch: O(E d (window + candidates compared)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nextedge.errors import TooLittleDataError
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.artifact import Artifact, arrays_below
from nextedge.models.distributed.collectives import Share, current_ranks, dropout
from nextedge.models.inference import IN_PROCESS, Inference
from nextedge.models.model import ModelConfig, TrainingData
from nextedge.models.neural.full_ranking import validation_of
from nextedge.models.neural.negatives import CurriculumConfig, Negatives
from nextedge.models.neural.trainer import (
    EPOCH,
    GradientModel,
    Task,
    TrainerConfig,
    stored_parameters,
)
from nextedge.models.pytorch import as_index, import_torch, load_parameters
from nextedge.types import ENGAGES, FloatArray, IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn

_MIN_EDGES = 50
_MASKED = -1e9
_SORTED_BATCHES = 16
"""Batches whose histories are sorted by length together."""


class SasRecConfig(ModelConfig):
    """Settings of the sequential tower and its training."""

    dimensions: int = Field(128, ge=1)
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    window: int = Field(50, ge=1)
    """Latest candidates of a query that the tower reads."""
    dropout: float = Field(0.3, ge=0, lt=1)
    compare_all_below: int = Field(4_000, ge=0)
    """Most candidates for a softmax over all; above, it is over those of the batch and draws."""
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    """Share of the queries whose latest edge decides when to stop."""
    trainer: TrainerConfig = TrainerConfig(
        learning_rate=1e-3, epochs=40, batch=256, patience=4, weight_decay=1e-5
    )
    curriculum: CurriculumConfig = CurriculumConfig(negatives=1024)


class SasRec(GradientModel[SasRecConfig]):
    """Query embeddings from ordered histories, candidate embeddings from ids and features."""

    name = "sasrec"
    relations = (ENGAGES,)
    reason = "because_you_liked"
    needs_times = True

    def task(self, data: TrainingData, config: SasRecConfig) -> Task:
        return _task(data, config)

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        """See ``Model.embed``; runs in this process, since PyTorch computes the attention."""
        torch = import_torch(f"the model {self.name!r}")
        config = SasRecConfig.model_validate(artifact.config)
        module = _module(data, config)
        load_parameters(module, arrays_below(artifact.arrays, "weight."))
        module.eval()
        histories = _histories(data.graph, config.window)
        with torch.no_grad():
            vectors = _embeddings(module, data, histories, np.array(artifact.arrays["seen"]))
        return Artifact(self.name, artifact.config, {**artifact.arrays, **vectors}, artifact.about)


def _histories(graph: Graph, window: int, skip: int = 0) -> IndexArray:
    """int32[Q, window]: the latest candidates of each query, oldest first, -1 before the first.

    Args:
        skip: number of latest candidates to leave out.
    """
    row = np.repeat(np.arange(len(graph)), graph.degree)
    # Edges of one time are ordered by id, so that a graph has one sequence.
    order = np.lexsort((graph.indices, graph.last, row))
    from_end = np.repeat(graph.indptr[1:], graph.degree) - 1 - np.arange(graph.edges) - skip
    inside = (from_end >= 0) & (from_end < window)
    history_QL = np.full((len(graph), window), -1, np.int32)
    history_QL[row[inside], window - 1 - from_end[inside]] = graph.indices[order][inside]
    return history_QL


def _features(values: FloatArray | None, rows: int) -> FloatArray:
    """float32[rows, F]: columns of mean 0 and deviation 1; constant and missing values are 0."""
    if values is None:
        return np.zeros((rows, 0), np.float32)
    finite = np.where(np.isfinite(values), values, 0.0)
    deviation = finite.std(axis=0)
    # A constant column has deviation 0.
    scaled = (finite - finite.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1.0)
    return np.clip(scaled, -5.0, 5.0).astype(np.float32)


def _module(data: TrainingData, config: SasRecConfig) -> nn.Module:
    """The tower: ``states`` reads histories, ``vectors`` gives candidates."""
    import torch
    from torch import nn
    from torch.nn import functional

    width = config.dimensions
    queries = torch.from_numpy(_features(data.query_features, len(data.graph)))
    items = torch.from_numpy(_features(data.candidate_features, data.graph.targets))

    class Block(nn.Module):
        """Causal self-attention and a pointwise network, with layer norm before each."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x: Tensor, mask: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
            """[B, L, d] → [B, L, d]; the logits add ``mask`` [B, 1, L, L]."""
            parts = self.joint(self.first(x)).chunk(3, dim=-1)
            query, key, value = (p.unflatten(-1, (config.heads, -1)).transpose(1, 2) for p in parts)
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            x = x + drop(self.out(attended.transpose(1, 2).flatten(-2)))
            inner = functional.gelu(self.wide(self.second(x)))
            return x + drop(self.narrow(drop(inner)))

    class Tower(nn.Module):
        """Vectors of candidates and states of histories."""

        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Embedding(data.graph.targets, width)
            self.place = nn.Embedding(config.window, width)
            # The names of the parameters are those of the artifact.
            nn.init.normal_(self.own.weight, std=0.02)
            nn.init.normal_(self.place.weight, std=0.02)
            self.of_item, self.of_query = (
                nn.Linear(x.shape[1], width, bias=False) if x.shape[1] else None
                for x in (items, queries)
            )
            self.blocks = nn.ModuleList(Block() for _ in range(config.blocks))
            self.last = nn.LayerNorm(width)

        def vectors(self, ids: Tensor) -> Tensor:
            """[…] → […, d]."""
            embedding = self.own(ids)
            return embedding if self.of_item is None else embedding + self.of_item(items[ids])

        def states(self, history: Tensor, query: Tensor, share: Share) -> Tensor:
            """[B, L] candidates (-1 none) and [B] queries of a batch's share → [B, L, d]."""

            def drop(x: Tensor) -> Tensor:
                return dropout(x, config.dropout, share, training=self.training)

            present = history >= 0
            length = history.shape[1]
            earlier = torch.ones(length, length, dtype=torch.bool).tril()
            # A row that masks everything has no softmax: each position always sees itself.
            itself = torch.eye(length, dtype=torch.bool)
            mask = (earlier & present[:, None, :]) | itself  # [B, L, L]
            bias = torch.where(mask, 0.0, _MASKED)[:, None]
            # Places count from the latest: a batch is only as long as its longest history.
            x = self.vectors(history.clamp_min(0)) + self.place.weight[-length:]
            x = drop(x) * present[..., None]
            for block in self.blocks:
                x = block(x, bias, drop)
            x = self.last(x) * present[..., None]
            if self.of_query is not None:
                x = x + self.of_query(queries[query])[:, None]
            return x

    return Tower()


def _embeddings(
    module: Any, data: TrainingData, histories: IndexArray, seen: np.ndarray, block: int = 1024
) -> dict[str, FloatArray]:
    import torch

    query = np.empty((len(histories), module.place.weight.shape[1]), np.float32)
    for start in range(0, len(histories), block):
        part = as_index(histories[start : start + block])
        ids = torch.arange(start, start + len(part))
        whole = Share(slice(0, len(part)), len(part))
        query[start : start + len(part)] = module.states(part, ids, whole)[:, -1].detach().numpy()
    ids = torch.arange(data.graph.targets)
    # Training never moved the embedding of an unseen candidate: it is noise.
    embedding = module.own.weight.detach() * torch.from_numpy(seen)[:, None]
    described = 0.0 if module.of_item is None else module.vectors(ids).detach() - module.own(ids)
    return {"query": query, "candidate": (embedding + described).detach().numpy()}


def _task(data: TrainingData, config: SasRecConfig) -> Task:
    import torch

    graph = data.graph
    if graph.edges < _MIN_EDGES:
        raise TooLittleDataError(
            f"{SasRec.name}: {graph.edges} edges to learn from, expected {_MIN_EDGES} or more"
        )
    module: Any = _module(data, config)
    random = np.random.default_rng([data.seed, 5])
    # A single edge would leave no history to predict it from.
    validates = (random.random(len(graph)) < config.validation_share) & (graph.degree > 1)
    # One candidate more than the tower reads: each history is the input of its next candidate.
    shorter, whole = (_histories(graph, config.window + 1, skip) for skip in (1, 0))
    sequences = np.where(validates[:, None], shorter, whole)
    histories, latest = sequences[:, 1:], _histories(graph, 1)[:, 0]
    positives = np.flatnonzero(validates).astype(np.int32), latest[validates]
    source, position = np.nonzero(histories >= 0)
    targets = histories[source, position]
    training = build_graph(source.astype(np.int32), targets, len(graph), graph.targets)
    length = (sequences >= 0).sum(axis=1)
    learners = np.flatnonzero(length > 1)
    size = max(1, min(config.trainer.batch, len(learners)))
    negatives = Negatives(graph, config.curriculum)
    frequency = graph.target_degree / max(graph.edges, 1)
    # At 12,000 items an epoch over all takes 50 s, with 1,024 draws 10 s (docs/log.md).
    compares_all = graph.targets <= config.compare_all_below
    seen = graph.target_degree > 0
    ranks = current_ranks()

    def batches(epoch: int) -> Iterator[tuple[int, IndexArray]]:
        random = np.random.default_rng([data.seed, epoch])
        order = random.permutation(learners)
        # Histories of similar length share a batch, which then holds little padding.
        pool = np.arange(len(order)) // (size * _SORTED_BATCHES)
        order = order[np.lexsort((length[order], pool))]
        for number, step in enumerate(random.permutation(len(order) // size)):
            yield epoch * EPOCH + number, order[step * size : (step + 1) * size]

    def loss(batch: tuple[int, IndexArray], done: float) -> Tensor:
        seed, queries = batch
        longest = int(length[queries].max())
        history = as_index(sequences[queries, -longest:])
        goal = history[:, 1:]
        is_step = (goal >= 0) & (history[:, :-1] >= 0)
        goals = goal[is_step]
        share = ranks.share(len(queries))
        in_share = torch.zeros(len(queries), dtype=torch.bool)
        in_share[share.rows] = True
        step_in_share = (in_share[:, None] & is_step)[is_step]
        state = module.states(history[share.rows, :-1], as_index(queries[share.rows]), share)
        state = state[is_step[share.rows]]
        if compares_all:
            logit = state @ module.vectors(torch.arange(graph.targets)).T
        else:
            sampled = negatives.draw(queries, seed, done, embed_now, data.seed).ravel()
            pool, goals = torch.unique(torch.cat((goals, as_index(sampled))), return_inverse=True)
            goals = goals[: len(step_in_share)]
            # The chance of each candidate to be in the pool: the batch alone brings popular ones.
            in_batch = frequency[pool.numpy()]
            uniform = 1.0 / graph.targets
            chance = 1.0 - (1.0 - in_batch) ** len(step_in_share) * (1.0 - uniform) ** len(sampled)
            correction = np.log(np.maximum(chance, 1e-12)).astype(np.float32)
            logit = state @ module.vectors(pool).T - torch.from_numpy(correction)
        mean = torch.nn.functional.cross_entropy(logit, goals[step_in_share])
        return mean * (len(state) / len(step_in_share))

    def embed_now() -> tuple[FloatArray, FloatArray]:
        was_training = module.training
        module.eval()
        with torch.no_grad():
            vectors = _embeddings(module, data, histories, seen)
        module.train(was_training)
        return vectors["query"], vectors["candidate"]

    validate = validation_of(data, training, positives, embed_now)

    def arrays() -> dict[str, np.ndarray]:
        return {**stored_parameters(module), "seen": seen}

    return Task(module, batches, len(learners) // size, loss, validate, arrays)
