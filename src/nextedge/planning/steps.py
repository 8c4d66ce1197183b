"""The cost of each step of a build: measured parts, as often as the build runs them.

A surface's ``rank`` makes a graph and fits its sources once a label window and once for queries
without edges; ``evaluate`` does so once. Settings bound labels, training rows and evaluated queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nextedge.build.cache.memory_budget import NEEDS
from nextedge.build.time_split.split import LABEL_WINDOWS
from nextedge.config import SurfaceConfig
from nextedge.planning.coefficients import Coefficients, Law
from nextedge.planning.workload import ITEMS, PEOPLE, Size, Workload

EVALUATED, IMPRESSIONS, FUSION, COLD_SHARE, COLD_PARTS = 20_000, 100_000, 1_000, 0.1, 3
"""Bounds of the steps, repeated here so that a plan loads none of their libraries."""
IMPRESSION_SHARE = 1 / 15
"""Share of the impressions that the evaluation window decides, in the synthetic tenant."""
_DIMENSIONS = {"als": 256, "graphsage": 128}
_DEFAULT_OFF = ("graphsage",)
_PUBLISH_GIB, _PROCESS_GIB = 1.05, 0.21
"""Peak memory of a process that publishes candidates, and of one that has loaded the libraries."""


class Part(NamedTuple):
    """Some runs of a law at a driver."""

    law: Law
    driver: float
    times: float = 1.0

    @property
    def seconds(self) -> float:
        """CPU seconds of all runs."""
        return self.times * self.law.at(self.driver)


class Text(NamedTuple):
    """What a step's cost grows with, what bounds its memory, and what spreads its work."""

    grows_with: str
    bounded_by: str = ""
    spread_by: str = ""


_SPARK = "Spark"
_TEXTS = {
    "tables": Text("rows of all tables", "build.memory_gib; the rest spills to disk", _SPARK),
    "entities": Text("rows of all tables", "ids; the step reads 2 M rows at a time", _SPARK),
    "snapshot": Text("entries of all graphs", "users; the step makes entries in blocks", _SPARK),
    "embed": Text("epochs × entries, where a network is on", "batches; one vector a user"),
    "sources": Text("users, items and interactions", "users and items", _SPARK),
    "index": Text("vectors × dimensions, if approximate", "index.memory_mb", _SPARK),
    "rank": Text(
        "windows × (graph + sources); labels up to ranker.max_rows",
        "ranker.max_rows; one window's graph, mapped",
        _SPARK,
    ),
    "evaluate": Text(
        f"graph + sources; queries up to {EVALUATED:,}",
        f"{EVALUATED:,} queries; the window's graph, mapped",
        _SPARK,
    ),
    "release": Text("bytes of the release"),
    "candidates": Text(
        "users × candidates, and two-hop paths (Σ degree²) for people",
        "64 users at a time, over the mapped release",
        "publish --partition",
    ),
}


@dataclass(frozen=True)
class Step:
    """One step of a build.

    Attributes:
        name: the step, and its surface.
        memory_gib: peak on one machine, and the files that must stay in its page cache.
    """

    name: str
    parts: tuple[Part, ...]
    memory_gib: float = 0.0
    output_gib: float = 0.0

    @property
    def kind(self) -> str:
        """The step without its surface."""
        return self.name.split()[0]

    @property
    def text(self) -> Text:
        """The step's words."""
        return _TEXTS[self.kind]

    @property
    def spread_by(self) -> str:
        """How the code spreads the work over machines; empty where it does not."""
        return "training.launcher" if self.kind == "embed" and self.parts else self.text.spread_by

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of one build."""
        return sum(part.seconds for part in self.parts)

    def hours(self, cores: float) -> float:
        """Hours on one machine: each part's parallel share uses all cores (Amdahl 1967)."""
        if self.kind == "candidates":  # one process a core
            return self.cpu_seconds / cores / 3600
        shares = ((part.seconds, part.law.parallel) for part in self.parts)
        return sum(s * (1 - parallel + parallel / cores) for s, parallel in shares) / 3600

    @property
    def beyond(self) -> float:
        """The dearest part's driver as a multiple of the largest measured one; at least 1."""
        dearest = max(self.parts, key=lambda part: part.seconds, default=None)
        return 1.0 if dearest is None else max(dearest.driver / dearest.law.largest, 1.0)


def size_drivers(size: Size) -> dict[str, float]:
    """What the laws of all surfaces grow with: rows of tables, entries of graphs, nodes."""
    return {
        "rows": size.users + size.entries / 2 + size.items + size.interactions + size.impressions,
        "records": size.entries + 2 * size.interactions,
        "nodes": size.users + size.items,
        "items": size.items,
        "interactions": size.interactions,
        "users": size.users,
    }


def surface_drivers(
    size: Size, surface: SurfaceConfig, labelled: float, evaluated: float
) -> dict[str, float]:
    """What the laws of a surface grow with.

    Args:
        labelled: queries with labels in a window, before the surface's bounds.
        evaluated: queries with positives in the evaluation, before the bound.
    """
    ranker, candidates = surface.ranker, reach(size, surface)
    rows_a_query = ranker.top_negatives + ranker.sampled_negatives
    window = min(ranker.max_rows, labelled * rows_a_query)
    cold = size.users * COLD_SHARE / COLD_PARTS * rows_a_query
    cold = min(cold, max(1000, ranker.max_rows // COLD_PARTS))
    # each window's ranker trains on all windows before it, and the last one on all
    fits, cold_fits = (count * (count + 1) / 2 for count in (LABEL_WINDOWS, COLD_PARTS))
    queries = (LABEL_WINDOWS * window + COLD_PARTS * cold) / rows_a_query + min(FUSION, labelled)
    return size_drivers(size) | {
        "listed candidates": size.users * candidates,
        "labelled queries": queries,
        "labelled candidates": queries * candidates,
        "training rows": fits * window + cold_fits * cold,
        "evaluated queries": min(EVALUATED, evaluated),
        "evaluated candidates": min(EVALUATED, evaluated) * candidates,
        "evaluated impressions": min(size.impressions * IMPRESSION_SHARE, IMPRESSIONS),
    }


def reach(size: Size, surface: SurfaceConfig) -> float:
    """Candidates of a query: as configured, and no more than exist."""
    return min(float(surface.candidates), size.users if surface.kind == PEOPLE else size.items)


def steps_of(workload: Workload, table: Coefficients) -> list[Step]:
    """Every step of a refresh in its order, the published candidates of all users last."""
    size, at = workload.size, size_drivers(workload.size)

    def step(name: str, *laws: str) -> Step:
        parts = tuple(
            Part(table.law(f"cpu {law}"), at[table.law(f"cpu {law}").driver]) for law in laws
        )
        memory = (
            need_gib(name, size)
            if name in NEEDS
            else table.law(f"memory {name}").at(at["rows"]) / 1024
        )
        written = table.law(f"output {name}")
        return Step(name, parts, memory, written.at(at[written.driver]) / 1024)

    steps = [
        step("tables", "tables"),
        step("entities", "entities"),
        step("snapshot", "snapshot", "graphs"),
    ]
    for name, surface in workload.surfaces.items():
        steps += _surface_steps(name, surface, workload, table)
    written = sum(step.output_gib for step in steps[1:]) * 1024
    steps.append(Step("release", (Part(table.law("cpu release"), written),)))
    return steps + [_publish(*item, workload, table) for item in workload.surfaces.items()]


def _surface_steps(
    name: str, surface: SurfaceConfig, workload: Workload, table: Coefficients
) -> list[Step]:
    size, kind = workload.size, surface.kind
    users, graph = size.users, graph_gib(size, table)
    counts = (min(table.law(f"{of} {kind}").at(users), users) for of in ("labelled", "evaluated"))
    at = surface_drivers(size, surface, *counts)

    def part(law: str, times: float = 1.0) -> Part:
        measured = table.law(f"cpu {law}")
        return Part(measured, at[measured.driver], times)

    def fits(times: float) -> tuple[Part, ...]:
        names = (law for law in table.laws if law.startswith(f"cpu fit {kind} "))
        names = (law for law in names if enabled(surface, law.split()[-1]))
        return tuple(part(law.removeprefix("cpu "), times) for law in names)

    def two_hop(queries: float) -> Part:
        walked = query_wedges(workload) if kind == PEOPLE else 0.0
        return Part(table.law("cpu two_hop"), queries * walked)

    windows = LABEL_WINDOWS + 1  # the last for queries without edges
    ranked = (
        part("graphs", windows),
        *fits(windows),
        part(f"labels {kind}"),
        part(f"training {kind}"),
    )
    evaluated = (part("graphs"), *fits(1), part(f"queries {kind}"), part(f"impressions {kind}"))
    network: tuple[Part, ...] = ()
    if enabled(surface, "graphsage"):
        epochs = float(surface.sources["graphsage"].options.get("trainer.epochs", 20))
        network = (part("network graphsage", epochs),)
    embed_gib = need_gib("snapshot", size) + graph if network else _PROCESS_GIB
    sources_gib = table.law(f"output sources {kind}").at(at["nodes"]) / 1024
    components = indexed_components(surface, size)
    indexes = tuple(Part(table.law("cpu index"), count) for count in components)
    vectors_gib = 4 * sum(components) / 2**30  # float32
    return [
        Step(f"embed {name}", network, embed_gib),
        Step(f"sources {name}", fits(1), need_gib("sources", size), sources_gib),
        Step(f"index {name}", indexes, _PROCESS_GIB + 2 * vectors_gib, vectors_gib),
        Step(
            f"rank {name}",
            (*ranked, two_hop(at["labelled queries"])),
            need_gib("rank", size) + graph,
        ),
        Step(
            f"evaluate {name}",
            (*evaluated, two_hop(at["evaluated queries"])),
            need_gib("evaluate", size) + graph,
        ),
    ]


def _publish(name: str, surface: SurfaceConfig, workload: Workload, table: Coefficients) -> Step:
    """Candidates of every user, which ``nextedge publish`` writes into a store."""
    size, kind = workload.size, surface.kind
    search = table.law("cpu search")
    parts = [Part(table.law(f"cpu publish {kind}"), size.users * reach(size, surface))]
    if kind == PEOPLE:
        parts.append(Part(table.law("cpu two_hop"), size.wedges))
    parts += [Part(search, vectors, size.users) for vectors in indexed_components(surface, size)]
    sources_gib = table.law(f"output sources {kind}").at(size.users + size.items) / 1024
    memory = _PUBLISH_GIB + graph_gib(size, table) + sources_gib
    return Step(f"candidates {name}", tuple(parts), memory)


def need_gib(step: str, size: Size) -> float:
    """The memory that the build itself asks for before it starts a step."""
    records = size.entries / 2 + size.interactions  # both ends have an entry
    return NEEDS[step].bytes(round(size.users), round(records)) / 2**30


def graph_gib(size: Size, table: Coefficients) -> float:
    """Files of the graphs, which a step maps."""
    return table.law("output snapshot").at(size_drivers(size)["records"]) / 1024


def query_wedges(workload: Workload) -> float:
    """Two-hop paths of a user drawn by degree, as users with labels or requests tend to be."""
    degrees, size = workload.degrees, workload.size
    return size.wedges / size.entries * degrees.neighbors if size.entries else 0.0


def indexed_components(surface: SurfaceConfig, size: Size) -> list[float]:
    """Vectors × dimensions of each embedding that is searched through an index."""
    names = ("als", "graphsage") if surface.kind == ITEMS else ("graphsage",)
    count = size.items if surface.kind == ITEMS else size.users
    if count <= surface.index.exact_search_max_items:
        return []
    options = {
        name: surface.sources[name].options if name in surface.sources else {} for name in names
    }
    return [
        count * float(options[name].get("dimensions", _DIMENSIONS[name]))
        for name in names
        if enabled(surface, name)
    ]


def enabled(surface: SurfaceConfig, source: str) -> bool:
    """Whether a surface uses a source."""
    setting = surface.sources.get(source)
    return source not in _DEFAULT_OFF if setting is None else setting.enabled
