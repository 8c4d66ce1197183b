"""The layers that ``graphsage`` trains, over all nodes and row by row, by NumPy alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from nextedge.graph.aggregate import neighbor_means
from nextedge.models.inference import IN_PROCESS, Inference, Layer, unit_rows
from nextedge.models.neural.node_inputs import Inputs, Messages, Neighborhood, NeighborVectors
from nextedge.types import FloatArray


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear map of the vector of each node beside the means of its neighbours.

    Attributes:
        weight: float32[out, in], columns in the order of ``Neighborhood.rows``.
        bias: float32[out].
    """

    neighborhood: Neighborhood
    weight: FloatArray
    bias: FloatArray

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, out]."""
        parts = self.neighborhood.rows(start, stop)
        ends = np.cumsum([0, *(part.shape[1] for part in parts)])
        # Part by part: one product would need a copy of all parts side by side.
        raw: FloatArray = self.bias + parts[0] @ self.weight[:, : ends[1]].T
        for part, low, high in zip(parts[1:], ends[1:-1], ends[2:], strict=True):
            raw += part @ self.weight[:, low:high].T
        return raw


@dataclass(frozen=True, eq=False)
class Hidden(Layer):
    """The first layer: linear, batch norm (as a scale and a shift, float32[out]), ReLU."""

    linear: Linear
    scale: FloatArray
    shift: FloatArray

    def __len__(self) -> int:
        return len(self.linear.neighborhood)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, out]."""
        return np.maximum(self.linear.rows(start, stop) * self.scale + self.shift, 0.0)


@dataclass(frozen=True, eq=False)
class Embedded(Layer):
    """The second layer: linear, then scaled to unit length."""

    linear: Linear

    def __len__(self) -> int:
        return len(self.linear.neighborhood)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, out]."""
        return unit_rows(self.linear.rows(start, stop))


@dataclass(frozen=True, eq=False)
class Expanded(Layer):
    """Each vector plus the weighted mean of its neighbours, scaled to unit length.

    Query expansion: a search that includes the neighbours' vectors finds candidates that the
    vector of a query with few edges does not reach (Shi et al.: "Embedding Based Retrieval in
    Friend Recommendation", SIGIR 2023; and FriendSeedSelection, SIGIR 2024).

    Attributes:
        near: neighbours of each node, and the vectors of all.
        weight: of the mean; the vector itself has weight 1.
    """

    near: NeighborVectors
    weight: float

    def __len__(self) -> int:
        return len(self.near.x)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]."""
        x = self.near.x
        means = neighbor_means(self.near.neighbors, x, start, stop)
        return unit_rows(x[start:stop] + np.float32(self.weight) * means)


def embed_all(
    weights: Mapping[str, np.ndarray],
    inputs: Inputs,
    messages: list[Messages],
    inference: Inference = IN_PROCESS,
    kinds: Collection[str] | None = None,
) -> dict[str, FloatArray]:
    """Unit vectors of all nodes, layer by layer over the whole graph.

    Args:
        weights: parameters of the network by name.
        inputs: normalised.
        messages: all edges.
        inference: runs the layers.
        kinds: kinds of nodes to embed; default all.
    """

    def linear(name: str, kind: str, x: Inputs) -> Linear:
        layer = f"{kind}.{name}"
        neighborhood = Neighborhood.of(kind, x, messages)
        return Linear(neighborhood, weights[f"{layer}.weight"], weights[f"{layer}.bias"])

    hidden = {}
    for kind in inputs:
        # 1e-5 is the eps of PyTorch's batch norm.
        scale = weights[f"{kind}.norm.weight"] / np.sqrt(weights[f"{kind}.norm.running_var"] + 1e-5)
        shift = weights[f"{kind}.norm.bias"] - weights[f"{kind}.norm.running_mean"] * scale
        layer = Hidden(
            linear("first", kind, inputs),
            np.asarray(scale, np.float32),
            np.asarray(shift, np.float32),
        )
        hidden[kind] = inference.run(f"hidden-{kind}", layer)
    return {
        kind: inference.run(f"embedded-{kind}", Embedded(linear("second", kind, hidden)))
        for kind in inputs
        if kinds is None or kind in kinds
    }
