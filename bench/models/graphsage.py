"""GraphSAGE: vectors of all nodes, and pairs trained a second, beside PyTorch Geometric.

    pip install 'nextedge[bench]'
    python bench/models/graphsage.py [--nodes 1000000 --edges 10000000]

A seeded power-law graph with 64 features a node. Inference: all nodes, layer by layer; the peer is
PyTorch Geometric's SAGEConv of the same widths over a sparse matrix. Training: pairs a second of a
whole step (sampling 10 neighbours, forward, backward); the peer is its LinkNeighborLoader with
the same layers where one of its compiled samplers is installed (none is on PyPI for every torch).
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "two_hop"))
from graphs import chung_lu

from nextedge.graph.csr import Graph, build_graph
from nextedge.models.model import TrainingData
from nextedge.models.neural import graphsage as ours
from nextedge.types import CONNECTS

WIDTH = 64


def graph_of(nodes: int, edges: int) -> Graph:
    """A seeded power-law graph."""
    indptr, indices = chung_lu(nodes, edges)
    source = np.repeat(np.arange(nodes, dtype=np.int32), np.diff(indptr))
    return build_graph(source, indices, nodes, nodes)


def inference(graph: Graph, x: np.ndarray) -> dict[str, float]:
    """Seconds for the vectors of all nodes, ours and the peer's."""
    from torch_geometric.nn import SAGEConv

    config = ours.GraphSageConfig(spectral=0)
    data = TrainingData(CONNECTS, graph, x, x)
    messages = ours.messages_of(data, graph, config)
    inputs = {"query": x}
    module = ours._module(inputs, messages, config)
    weights = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    ours.embed_all(weights, {"query": x[:0]}, [type(messages[0])("query", "query", _none())])
    started = time.perf_counter()
    ours.embed_all(weights, inputs, messages)
    mine = time.perf_counter() - started
    layers = SAGEConv(WIDTH, config.hidden), SAGEConv(config.hidden, config.dimensions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = torch.sparse_csr_tensor(
            torch.from_numpy(np.asarray(graph.indptr)),
            torch.from_numpy(np.asarray(graph.indices, np.int64)),
            torch.ones(graph.edges),
            (len(graph), len(graph)),
        )
        started = time.perf_counter()
        with torch.no_grad():
            hidden = torch.relu(layers[0](torch.from_numpy(x), matrix))
            torch.nn.functional.normalize(layers[1](hidden, matrix), dim=1)
    peer = time.perf_counter() - started
    return {
        "nextedge_s": round(mine, 1),
        "pyg_s": round(peer, 1),
        "pyg / nextedge": round(peer / mine, 2),
    }


def _none() -> Graph:
    nobody = np.zeros(0, np.int32)
    return build_graph(nobody, nobody, 0, 0)


def training(graph: Graph, x: np.ndarray, steps: int = 20) -> dict[str, Any]:
    """Pairs a second, ours and the peer's where it can run."""
    config = ours.GraphSageConfig(spectral=0)
    data = TrainingData(CONNECTS, graph, x, x)
    kept, pairs, held = ours.take_out(data, config)
    messages = ours.messages_of(data, kept, config)
    inputs = ours.node_inputs(data, messages, ours.prepare(data, messages, config))
    module = ours._module(inputs, messages, config)
    task = ours._task(module, data, kept, messages, inputs, pairs, held, config)
    made, started = 0, 0.0
    for place, batch in enumerate(itertools.islice(task.batches(0), steps + 2)):
        if place == 2:
            started = time.perf_counter()
        loss = task.loss(batch, 0.0)
        loss.backward()
        made += len(batch[1]) if place >= 2 else 0
    found: dict[str, Any] = {"nextedge_pairs_per_s": round(made / (time.perf_counter() - started))}
    try:
        found["pyg_pairs_per_s"] = round(_peer_training(kept, pairs, x, config, steps))
        found["nextedge / pyg"] = round(found["nextedge_pairs_per_s"] / found["pyg_pairs_per_s"], 2)
    except ImportError as error:
        found["pyg"] = f"cannot run: {error}"
    return found


def _peer_training(kept: Graph, pairs: Any, x: np.ndarray, config: Any, steps: int) -> float:
    from torch_geometric.data import Data
    from torch_geometric.loader import LinkNeighborLoader
    from torch_geometric.nn import SAGEConv

    source = np.repeat(np.arange(len(kept)), kept.degree)
    edges = torch.from_numpy(np.stack((source, kept.indices)).astype(np.int64))
    wanted = torch.from_numpy(np.stack(pairs).astype(np.int64))
    loader = LinkNeighborLoader(
        Data(torch.from_numpy(x), edges),
        [config.fanout, config.fanout],
        edge_label_index=wanted,
        batch_size=config.trainer.batch,
        shuffle=True,
    )
    layers = SAGEConv(WIDTH, config.hidden), SAGEConv(config.hidden, config.dimensions)
    made, started = 0, 0.0
    for place, batch in enumerate(itertools.islice(loader, steps + 2)):
        if place == 2:
            started = time.perf_counter()
        vectors = layers[1](torch.relu(layers[0](batch.x, batch.edge_index)), batch.edge_index)
        left, right = (
            torch.nn.functional.normalize(vectors[i], dim=1) for i in batch.edge_label_index
        )
        logit = left @ right.T / config.temperature
        torch.nn.functional.cross_entropy(logit, torch.arange(len(left))).backward()
        made += len(left) if place >= 2 else 0
    return made / (time.perf_counter() - started)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    for share in (100, 10, 1):
        graph = graph_of(given.nodes // share, given.edges // share)
        x = np.random.default_rng(0).normal(size=(len(graph), WIDTH)).astype(np.float32)
        row: dict[str, Any] = {"nodes": len(graph), "edges": graph.edges // 2}
        row |= {"inference": inference(graph, x)}
        row |= {"training": training(graph, x)}
        row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        rows.append(row)
        print(json.dumps(row), flush=True)
        if given.out:
            given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
