"""Draw and measure the synthetic network beside real ones.

    python bench/synthetic/compare.py [--users 20000] [--seed 0]

Writes docs/images/synthetic.png and bench/synthetic/results/DATE-compare.json. The real graphs
are found by NEXTEDGE_DATA, or in ../shared/data beside the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from measures import Edges, ages, common_at_arrival, held_out, load_edges, local_clustering, rewired

from nextedge.data.synthetic import SyntheticConfig, generate_tenant

ROOT = Path(__file__).resolve().parents[2]
STATIC = {"Facebook American75": "american75", "Facebook UNC28": "unc28"}
TEMPORAL = {
    "Wikipedia elections": "wiki_elec",
    "MathOverflow answers": "mathoverflow_a2q",
    "CollegeMsg": "collegemsg",
}
COLOURS = {
    "synthetic": "#c0392b",
    "synthetic, rewired": "#e6a49b",
    "Facebook American75": "#1f4e79",
    "Facebook UNC28": "#5b9bd5",
    "MathOverflow answers": "#8d6e63",
    "Wikipedia elections": "#2e7d32",
    "CollegeMsg": "#8bc34a",
}


def data_folder() -> Path:
    """Where the real graphs are; leaves with a message when they are nowhere."""
    folder = Path(os.environ.get("NEXTEDGE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "facebook100").is_dir():
        sys.exit(f"{folder}: no real graphs there; set NEXTEDGE_DATA to their folder")
    return folder


def synthetic_edges(folder: Path, config: SyntheticConfig) -> Edges:
    """Generate a tenant and read its connections."""
    generate_tenant(folder, config)
    return load_edges(str(folder / "connections.parquet"), "synthetic")


def draw_degrees(axes: Axes, networks: Iterable[Edges]) -> None:
    """Share of the nodes with at least so many times the mean degree."""
    for network in networks:
        degree = np.sort(np.diff(network.graph().indptr))[::-1]
        share = np.arange(1, len(degree) + 1) / len(degree)
        axes.loglog(degree / degree.mean(), share, **style(network.name))
    axes.set(
        xlabel="degree / mean degree",
        ylabel="share of nodes with at least that",
        title="Degrees",
        xlim=(0.03, 100),
    )


def draw_clustering(axes: Axes, networks: Iterable[Edges]) -> None:
    """Mean local clustering of the nodes of about a degree."""
    for network in networks:
        graph = network.graph()
        degree, closed = np.diff(graph.indptr), local_clustering(graph)
        bins = np.floor(np.log2(np.maximum(degree, 1)) * 2).astype(int)
        rows = [
            (np.exp2((place + 0.5) / 2) / degree.mean(), np.nanmean(closed[bins == place]))
            for place in np.unique(bins[degree > 1])
            if (bins == place).sum() >= 10
        ]
        shown = [row for row in rows if row[1] > 0]  # a logarithmic axis has no zero
        axes.loglog(*zip(*shown, strict=True), **style(network.name))
    axes.set(
        xlabel="degree / mean degree", ylabel="mean local clustering", title="Clustering by degree"
    )


def draw_closure(axes: Axes, networks: Iterable[Edges]) -> None:
    """Share of new edges whose ends already had a neighbour in common."""
    for network in networks:
        closing = np.array_split(common_at_arrival(network) > 0, 20)
        axes.plot(np.arange(0.5, 20) / 20, [part.mean() for part in closing], **style(network.name))
    axes.set(
        xlabel="share of all edges made so far",
        ylabel="share of new edges",
        ylim=(0, 1),
        title="New edges that close a triangle",
    )


def draw_ages(axes: Axes, networks: Iterable[Edges]) -> None:
    """Share of edges made by an age of the node, as a part of the whole history."""
    for network in networks:
        assert network.time is not None
        age = np.sort(ages(network)) / (network.time[-1] - network.time[0])
        place = np.linspace(0, len(age) - 1, 500).astype(int)
        axes.plot(age[place], place / len(age), **style(network.name))
    axes.set(
        xlabel="node's age / length of the history",
        ylabel="share of edges made by that age",
        title="Age of nodes when they make edges",
        xlim=(0, 1),
        ylim=(0, 1),
    )


def style(name: str) -> dict[str, Any]:
    """Line of a network; the synthetic one stands out."""
    loose = "rewired" in name
    return {
        "label": name,
        "color": COLOURS[name],
        "linewidth": 2.4 if name == "synthetic" else 1.6,
        "linestyle": "--" if loose else "-",
        "zorder": 3 if name == "synthetic" else 2,
    }


def draw(path: Path, synthetic: Edges, static: list[Edges], temporal: list[Edges]) -> None:
    """The four panels."""
    figure, panels = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
    figure.get_layout_engine().set(hspace=0.08, wspace=0.05)  # type: ignore[union-attr, call-arg]
    loose = rewired(synthetic)
    shown: list[tuple[Callable[[Axes, Iterable[Edges]], None], list[Edges]]] = [
        (draw_degrees, [*static, synthetic]),
        (draw_clustering, [*static, loose, synthetic]),
        (draw_closure, [*temporal, synthetic]),
        (draw_ages, [*temporal, synthetic]),
    ]
    for axes, (panel, networks) in zip(panels.flat, shown, strict=True):
        panel(axes, networks)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9, reverse=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def measure(network: Edges) -> dict[str, float]:
    """One line of the table."""
    graph = network.graph()
    degree = np.diff(graph.indptr)
    one, other = degree[network.one], degree[network.other]
    out = {
        "nodes": network.nodes,
        "edges": len(network.one),
        "mean_degree": float(degree.mean()),
        "max_over_mean_degree": float(degree.max() / degree.mean()),
        "p99_over_mean_degree": float(np.quantile(degree, 0.99) / degree.mean()),
        "average_clustering": float(np.nanmean(local_clustering(graph))),
        "degree_assortativity": float(
            np.corrcoef(np.concatenate((one, other)), np.concatenate((other, one)))[0, 1]
        ),
    }
    if network.time is not None:
        closing = np.array_split(common_at_arrival(network) > 0, 10)
        span = network.time[-1] - network.time[0]
        out |= {
            "closing_first_tenth": float(closing[0].mean()),
            "closing_last_tenth": float(closing[-1].mean()),
            "median_age_of_edge": float(np.median(ages(network)) / span),
        }
    return {name: round(value, 4) for name, value in out.items()}


def shared_attributes(folder: Path, share: float = 0.1) -> dict[str, float]:
    """Of the latest connections without a common neighbour, how many share an attribute."""
    users = pq.read_table(folder / "users.parquet")
    place = {user: row for row, user in enumerate(users.column("user_id").to_pylist())}
    table = pq.read_table(folder / "connections.parquet").sort_by("timestamp")
    ends = [
        np.array([place[user] for user in table.column(end).to_pylist()]) for end in ("src", "dst")
    ]
    low, high = np.minimum(*ends), np.maximum(*ends)
    cut = round(len(low) * (1 - share))
    graph = Edges("", len(place), low, high, None).graph(0, cut)
    one, other = low[cut:], high[cut:]
    alone = np.asarray(graph[one].multiply(graph[other]).sum(axis=1)).ravel() == 0
    same = {
        name: np.unique(users.column(name).to_pylist(), return_inverse=True)[1]
        for name in ("company", "school", "city", "industry")
    }
    hits = {name: (code[one] == code[other])[alone] for name, code in same.items()}
    any_of_three = hits["company"] | hits["school"] | hits["city"]
    out = {f"same_{name}": float(hit.mean()) for name, hit in hits.items()}
    return out | {"same_company_school_or_city": float(any_of_three.mean())}


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = data_folder()
    config = SyntheticConfig(users=given.users, seed=given.seed)
    static = [
        load_edges(str(data / "facebook100" / college / "edges.parquet"), name)
        for name, college in STATIC.items()
    ]
    temporal = [
        load_edges(str(data / f"temporal_{folder}" / "edges.parquet"), name)
        for name, folder in TEMPORAL.items()
    ]
    with tempfile.TemporaryDirectory() as scratch:
        synthetic = synthetic_edges(Path(scratch), config)
        result = {
            "command": f"python bench/synthetic/compare.py --users {given.users} --seed {given.seed}",
            "networks": {
                network.name: measure(network)
                for network in (synthetic, rewired(synthetic), *static, *temporal)
            },
            "latest_tenth_of_connections": held_out(synthetic),
            "of_those_without_common_neighbours": shared_attributes(Path(scratch)),
        }
    draw(ROOT / "docs" / "images" / "synthetic.png", synthetic, static, temporal)
    today = datetime.now(UTC).date().isoformat()
    target = ROOT / "bench" / "synthetic" / "results" / f"{today}-compare.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
