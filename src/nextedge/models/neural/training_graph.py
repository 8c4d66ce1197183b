"""The graph and node inputs of a training, made once for all processes that share it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from nextedge.errors import TooLittleDataError, TrainingError
from nextedge.graph.csr import Graph
from nextedge.models.artifact import arrays_below
from nextedge.models.distributed.collectives import current_ranks
from nextedge.models.model import TrainingData
from nextedge.models.neural.full_ranking import Edges
from nextedge.models.neural.node_inputs import (
    GraphSageConfig,
    Inputs,
    InputTransform,
    Messages,
    fit_inputs,
    messages_of,
    node_inputs,
    split_edges,
    with_neighbor_means,
)

FOLDER = "training_graph"
ABOUT = "training_graph.json"
MIN_EDGES = 200
"""Fewest edges to predict; of fewer, a model learns nothing that differs from chance."""


@dataclass(frozen=True, eq=False)
class TrainingGraph:
    """A graph without its edges to predict, and the inputs of its nodes.

    Attributes:
        graph: the graph without the edges to predict.
        training, validation: the edges to predict.
        messages: edges that carry messages.
        transform: of the inputs, for later graphs.
        inputs: float32[N, F] of each kind of node.
        means: float32[N, …]: the inputs beside their means over the neighbours.
    """

    graph: Graph
    training: Edges
    validation: Edges
    messages: list[Messages]
    transform: InputTransform
    inputs: Inputs
    means: Inputs

    def save(self, directory: Path) -> None:
        """Write a new folder, which appears whole or not at all."""
        partial = directory.with_name(f".{directory.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        # A rename replaces no folder with files, which an earlier training may have left.
        shutil.rmtree(directory, ignore_errors=True)
        partial.mkdir(parents=True)
        graphs, parts = [self.graph], []
        for part in self.messages:
            # Relations may share a graph, which is written once.
            number = next((n for n, g in enumerate(graphs) if g is part.graph), len(graphs))
            graphs += [part.graph] * (number == len(graphs))
            parts.append([part.into, part.out_of, number])
        for number, graph in enumerate(graphs):
            (partial / f"graph-{number}").mkdir()
            graph.save(partial / f"graph-{number}")
        arrays = {f"transform.{name}": x for name, x in self.transform.arrays().items()}
        for name in ("training", "validation"):
            arrays[f"{name}.source"], arrays[f"{name}.target"] = getattr(self, name)
        for name in ("inputs", "means"):
            arrays |= {f"{name}.{kind}": x for kind, x in getattr(self, name).items()}
        for name, values in arrays.items():
            np.save(partial / f"{name}.npy", values, allow_pickle=False)
        about = {"messages": parts, "graphs": len(graphs), "arrays": list(arrays)}
        (partial / ABOUT).write_text(json.dumps(about))
        os.replace(partial, directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Memory-map a folder that ``save`` wrote."""
        about = json.loads((directory / ABOUT).read_text())
        graphs = [Graph.load(directory / f"graph-{number}") for number in range(about["graphs"])]
        arrays = {name: _mapped(directory / f"{name}.npy") for name in about["arrays"]}
        return cls(
            graph=graphs[0],
            training=(arrays["training.source"], arrays["training.target"]),
            validation=(arrays["validation.source"], arrays["validation.target"]),
            messages=[Messages(into, out_of, graphs[n]) for into, out_of, n in about["messages"]],
            transform=InputTransform.of(arrays_below(arrays, "transform.")),
            inputs=arrays_below(arrays, "inputs."),
            means=arrays_below(arrays, "means."),
        )


def training_graph(model: str, data: TrainingData, config: GraphSageConfig) -> TrainingGraph:
    """The training graph of a model; the first of several processes makes it for all, by files.

    Raises:
        TooLittleDataError: too few edges.
        TrainingError: no edge carries messages though the model needs them.
    """

    def make() -> TrainingGraph:
        graph, training, validation = split_edges(data, config)
        if len(training[0]) < MIN_EDGES:
            raise TooLittleDataError(
                f"{model}: {len(training[0])} edges to learn from, expected {MIN_EDGES} or more"
            )
        messages = messages_of(data, graph, config)
        # Two towers learn from features alone.
        if not messages and model == "graphsage":
            raise TrainingError(
                f"{model}: no edges carry messages (messages = {config.messages!r}); "
                "give the tables of other relations, or take messages = 'predicted'"
            )
        transform = fit_inputs(data, messages, config)
        inputs = node_inputs(data, messages, transform)
        means = with_neighbor_means(inputs, messages)
        return TrainingGraph(graph, training, validation, messages, transform, inputs, means)

    return _once(None if data.directory is None else data.directory / FOLDER, make)


def _once(directory: Path | None, make: Callable[[], TrainingGraph]) -> TrainingGraph:
    ranks = current_ranks()
    if ranks.size == 1 or directory is None:
        return make()
    failed = np.zeros(1)
    if ranks.first:
        try:
            make().save(directory)
        except BaseException:
            ranks.from_first(np.ones(1))  # else the other ranks wait for a broadcast for ever
            raise
    if ranks.from_first(failed)[0]:
        raise TrainingError("process 0 could not prepare the training; its own error says why")
    return TrainingGraph.load(directory)


def _mapped(path: Path) -> np.ndarray:
    # Copy on write: PyTorch takes no read-only arrays, and nothing writes to these.
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
