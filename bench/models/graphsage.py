"""GraphSAGE: vectors of all nodes beside PyTorch Geometric, and pairs trained a second.

    pip install 'nextedge[bench]'
    python bench/models/graphsage.py [--nodes 1000000 --edges 10000000]

A seeded power-law graph with 64 features a node. Inference: all nodes, layer by layer; the peer is
PyTorch Geometric's SAGEConv of the same widths over a sparse matrix. Training: pairs a second of a
whole step (sampling 10 neighbours, forward, backward); PyTorch Geometric's neighbour loaders need a
compiled sampler that PyPI lacks for this version of torch, so training has no peer.
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
from nextedge.models.neural import graphsage
from nextedge.models.neural.node_inputs import GraphSageConfig, Messages, messages_of
from nextedge.models.neural.sage_layers import embed_all
from nextedge.models.pytorch import parameter_arrays
from nextedge.types import CONNECTS

WIDTH = 64
WARM_UP = 2
CONFIG = GraphSageConfig(spectral=0)


def graph_of(nodes: int, edges: int) -> Graph:
    """A seeded power-law graph."""
    indptr, indices = chung_lu(nodes, edges)
    source = np.repeat(np.arange(nodes, dtype=np.int32), np.diff(indptr))
    return build_graph(source, indices, nodes, nodes)


def inference(graph: Graph, x: np.ndarray) -> dict[str, float]:
    """Seconds for the vectors of all nodes, ours and the peer's."""
    from torch_geometric.nn import SAGEConv

    messages = messages_of(TrainingData(CONNECTS, graph, x, x), graph, CONFIG)
    weights = parameter_arrays(graphsage._module({"query": x}, messages, CONFIG))
    none = np.zeros(0, np.int32)
    empty = [Messages("query", "query", build_graph(none, none, 0, 0))]
    embed_all(weights, {"query": x[:0]}, empty)  # compiles
    started = time.perf_counter()
    embed_all(weights, {"query": x}, messages)
    ours_s = time.perf_counter() - started
    layers = SAGEConv(WIDTH, CONFIG.hidden), SAGEConv(CONFIG.hidden, CONFIG.dimensions)
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
    peer_s = time.perf_counter() - started
    return {
        "nextedge_s": round(ours_s, 1),
        "pyg_s": round(peer_s, 1),
        "pyg / nextedge": round(peer_s / ours_s, 2),
    }


def training(graph: Graph, x: np.ndarray, steps: int = 20) -> dict[str, int]:
    """Pairs trained a second."""
    task = graphsage._task(TrainingData(CONNECTS, graph, x, x), CONFIG)
    pairs, started = 0, 0.0
    for step, batch in enumerate(itertools.islice(task.batches(0), steps + WARM_UP)):
        if step == WARM_UP:
            started = time.perf_counter()
        task.loss(batch, 0.0).backward()
        pairs += len(batch[1]) if step >= WARM_UP else 0
    return {"nextedge_pairs_per_s": round(pairs / (time.perf_counter() - started))}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for share in (100, 10, 1):
        graph = graph_of(options.nodes // share, options.edges // share)
        x = np.random.default_rng(0).normal(size=(len(graph), WIDTH)).astype(np.float32)
        row: dict[str, Any] = {"nodes": len(graph), "edges": graph.edges // 2}
        row |= {"inference": inference(graph, x)}
        row |= {"training": training(graph, x)}
        row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        rows.append(row)
        print(json.dumps(row), flush=True)
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
