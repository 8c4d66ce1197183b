"""What a training over a graph reads, made once for all processes that share the training."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from nextedge.errors import TooLittleDataError, TrainingError
from nextedge.graph.csr import Graph
from nextedge.models.distributed.collectives import current_ranks
from nextedge.models.model import TrainingData
from nextedge.models.neural.node_inputs import (
    Inputs,
    Messages,
    Preparation,
    messages_of,
    node_inputs,
    prepare,
    take_out,
    with_means,
)
from nextedge.types import IndexArray

if TYPE_CHECKING:
    from nextedge.models.neural.node_inputs import GraphSageConfig

FOLDER = "layout"
ABOUT = "layout.json"
FEWEST_EDGES = 200
"""Edges to predict below which nothing can be learned and told from chance."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A graph without its edges to predict, and the inputs of its nodes.

    Attributes:
        kept: the graph without the edges to predict.
        training, validation: int32[E] sources and targets of those edges.
        messages: edges along which nodes hear from each other.
        prepared: how the inputs were made.
        inputs: float32[N, F] of each kind of node.
        means: float32[N, …]: the inputs beside their means over the neighbours.
    """

    kept: Graph
    training: tuple[IndexArray, IndexArray]
    validation: tuple[IndexArray, IndexArray]
    messages: list[Messages]
    prepared: Preparation
    inputs: Inputs
    means: Inputs

    def save(self, directory: Path) -> None:
        """Write into a new folder, which appears whole or not at all."""
        partial = directory.with_name(f".{directory.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
        partial.mkdir(parents=True)
        graphs = [self.kept]
        parts = []
        for part in self.messages:
            if not any(part.graph is graph for graph in graphs):
                graphs.append(part.graph)
            place = next(i for i, graph in enumerate(graphs) if graph is part.graph)
            parts.append([part.into, part.out_of, place])
        for place, graph in enumerate(graphs):
            (partial / f"graph-{place}").mkdir()
            graph.save(partial / f"graph-{place}")
        arrays = {f"prepared.{name}": x for name, x in self.prepared.arrays().items()}
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
        """Memory-map what ``save`` wrote."""
        about = json.loads((directory / ABOUT).read_text())
        graphs = [Graph.load(directory / f"graph-{place}") for place in range(about["graphs"])]
        arrays = {name: _mapped(directory / f"{name}.npy") for name in about["arrays"]}

        def named(prefix: str) -> dict[str, np.ndarray]:
            return {n[len(prefix) :]: x for n, x in arrays.items() if n.startswith(prefix)}

        return cls(
            graphs[0],
            (arrays["training.source"], arrays["training.target"]),
            (arrays["validation.source"], arrays["validation.target"]),
            [Messages(into, out_of, graphs[place]) for into, out_of, place in about["messages"]],
            Preparation.of(named("prepared.")),
            named("inputs."),
            named("means."),
        )


def lay_out(model: str, data: TrainingData, config: GraphSageConfig) -> Layout:
    """Lay out a training; the first of several processes does it for all, by files.

    Raises:
        TooLittleDataError: too few edges.
        TrainingError: no edge carries messages though the model needs them.
    """

    def make() -> Layout:
        kept, training, validation = take_out(data, config)
        if len(training[0]) < FEWEST_EDGES:
            raise TooLittleDataError(
                f"{model}: {len(training[0])} edges to learn from, expected {FEWEST_EDGES} or more"
            )
        messages = messages_of(data, kept, config)
        if not messages and model == "graphsage":
            raise TrainingError(
                f"{model}: no edges carry messages (messages = {config.messages!r}); "
                "give the tables of other relations, or take messages = 'predicted'"
            )
        prepared = prepare(data, messages, config)
        inputs = node_inputs(data, messages, prepared)
        means = with_means(inputs, messages)
        return Layout(kept, training, validation, messages, prepared, inputs, means)

    return _once(None if data.directory is None else data.directory / FOLDER, make)


def _once(directory: Path | None, make: Callable[[], Layout]) -> Layout:
    ranks = current_ranks()
    if ranks.size == 1 or directory is None:
        return make()
    failed = np.zeros(1)
    if ranks.first:
        try:
            make().save(directory)
        except BaseException:
            ranks.from_first(np.ones(1))  # else the others would wait for nothing
            raise
    if ranks.from_first(failed)[0]:
        raise TrainingError("process 0 could not lay the training out; its own error says why")
    return Layout.load(directory)


def _mapped(path: Path) -> np.ndarray:
    """Memory-mapped, and writable without being written: PyTorch takes no read-only arrays."""
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
