"""The stages of a build: what each does how often, and which measured laws that is made of.

A stage's cost is a sum of parts, each a law at its driver, as often as the code runs it: a
surface's ``rank`` makes a graph and fits its sources for every label window and once more for
queries without edges, ``evaluate`` once.
"""

from __future__ import annotations

from dataclasses import dataclass

from nextedge.build.cache.memory_budget import NEEDS
from nextedge.build.time_split.split import LABEL_WINDOWS
from nextedge.config import SurfaceConfig
from nextedge.planning.coefficients import Coefficients
from nextedge.planning.drivers import EVALUATED, driver_of, drivers, labels_of, reach
from nextedge.planning.workload import ITEMS, PEOPLE, Size, Workload

_WINDOWS_FITTED = {"sources": 1, "rank": LABEL_WINDOWS + 1, "evaluate": 1}
"""Times that each step fits all sources of its surface."""
_TRAINED = {"graphsage": 128}
"""Models that the embed step trains, where they are on, and their dimensions; as measured."""


@dataclass(frozen=True)
class Term:
    """One part of a stage: ``times`` runs of a law at a driver."""

    law: str
    driver: float
    times: float = 1.0


@dataclass(frozen=True)
class Stage:
    """One step of the offline line.

    Attributes:
        name: the step, with its surface.
        grows_with: its drivers, in words.
        cpu: parts of its CPU seconds.
        need: GiB of its peak of anonymous memory, as the build itself asks for it before it starts.
        memory: parts of that peak where there is no ``need``, or beside it; with their fixed parts.
        spills: whether it spills to disk instead of taking more than there is.
        mapped: parts of the files that it reads here and there, which must stay in memory too.
        output: parts of what it writes.
        bounded_by: the settings that bound its memory, in words.
        spread_by: how the present code spreads its work over machines; empty where it does not.
        processes: whether several of it run beside each other on a machine, each on a core.
        divided_by: how it divides its memory between them; empty where each needs all of it.
    """

    name: str
    grows_with: str
    cpu: tuple[Term, ...]
    need: float = 0.0
    memory: tuple[Term, ...] = ()
    spills: bool = False
    mapped: tuple[Term, ...] = ()
    output: tuple[Term, ...] = ()
    bounded_by: str = ""
    spread_by: str = ""
    divided_by: str = ""
    processes: bool = False

    def cpu_seconds(self, coefficients: Coefficients) -> float:
        """Of all cores, for one build."""
        return sum(t.times * coefficients.law(f"cpu {t.law}").at(t.driver) for t in self.cpu)

    def seconds(self, coefficients: Coefficients, cores: float) -> float:
        """On one machine of so many cores.

        Each part's share that runs on many cores is what it was measured to be (Amdahl 1967).
        """
        if self.processes:
            return self.cpu_seconds(coefficients) / cores
        spent = 0.0
        for term in self.cpu:
            used, of = coefficients.threads(term.law), coefficients.cores
            serial = 1.0 if of <= 1 else (of / used - 1.0) / (of - 1.0)
            cpu = term.times * coefficients.law(f"cpu {term.law}").at(term.driver)
            spent += cpu * (serial + (1.0 - serial) / cores)
        return spent

    def memory_gib(self, coefficients: Coefficients) -> float:
        """Peak of memory were it run on one machine."""
        files = sum(coefficients.law(f"output {t.law}").grown(t.driver) for t in self.mapped)
        own = sum(coefficients.law(f"memory {t.law}").at(t.driver) for t in self.memory)
        return self.need + (files + own) / 1024

    def output_gib(self, coefficients: Coefficients) -> float:
        """What it writes."""
        mib = sum(t.times * coefficients.law(f"output {t.law}").at(t.driver) for t in self.output)
        return mib / 1024

    def beyond(self, coefficients: Coefficients) -> float:
        """Times the largest driver measured, of the part that costs most; at least 1."""
        costs = {
            term: term.times * coefficients.law(f"cpu {term.law}").at(term.driver)
            for term in self.cpu
        }
        if not costs:
            return 1.0
        most = max(costs, key=lambda term: costs[term])
        return coefficients.law(f"cpu {most.law}").beyond(most.driver)


def wedges_of_asker(workload: Workload) -> float:
    """Two-hop paths of one who is drawn by degree, as those who have labels or ask tend to be."""
    degrees, size = workload.degrees, workload.size
    if not size.entries:
        return 0.0
    return size.neighbor_degree * degrees.second / degrees.mean


def stages_of(workload: Workload, coefficients: Coefficients) -> list[Stage]:
    """Every stage of one refresh, in the order in which they run."""
    size = workload.size
    rows, records = size.rows, size.records
    found = [
        Stage(
            "tables",
            "rows of all tables",
            (Term("tables", rows),),
            memory=(Term("tables", rows),),
            spills=True,
            output=(Term("tables", rows),),
            bounded_by="build.memory_gib; the rest spills to disk",
            spread_by="Spark",
        ),
        Stage(
            "entities",
            "rows of all tables",
            (Term("entities", rows),),
            need=need_gib("entities", size),
            output=(Term("entities", rows),),
            bounded_by="ids; rows are read 2 M at a time",
            spread_by="Spark",
        ),
        Stage(
            "snapshot",
            "entries of all graphs",
            (Term("snapshot", records), Term("graphs", records)),
            need=need_gib("snapshot", size),
            output=(Term("snapshot", records),),
            bounded_by="users; entries are made in blocks, straight into files",
            spread_by="Spark",
        ),
    ]
    for name, surface in workload.surfaces.items():
        found += _of_surface(name, surface, workload, coefficients)
    written = sum(each.output_gib(coefficients) for each in found if each.name != "tables") * 1024
    found.append(Stage("release", "bytes of the release", (Term("release", written),)))
    found += [_candidates(name, surface, workload) for name, surface in workload.surfaces.items()]
    return found


def _of_surface(
    name: str, surface: SurfaceConfig, workload: Workload, coefficients: Coefficients
) -> list[Stage]:
    size, kind = workload.size, surface.kind
    labels = labels_of(kind, size.users, surface, coefficients)
    at = drivers(size, {kind: labels}, {kind: reach(size, surface)})

    def term(law: str, times: float = 1.0, quantity: str = "cpu") -> Term:
        return Term(law, at[driver_of(f"{quantity} {law}")], times)

    def fits(step: str) -> tuple[Term, ...]:
        return tuple(term(law, _WINDOWS_FITTED[step]) for law in _fits(kind, surface, coefficients))

    indexed = vectors(kind, surface, size)
    networks = _networks(surface, size, coefficients)
    graph = (Term("snapshot", size.records),)
    walked = wedges_of_asker(workload) if kind == PEOPLE else 0.0
    rank = (
        term(f"rank {kind}"),
        term("graphs", LABEL_WINDOWS + 1),
        *fits("rank"),
        term(f"fusion {kind}"),
        term(f"labels {kind}"),
        term(f"training {kind}"),
        Term("two_hop", (labels.queries + labels.fused) * walked),
    )
    evaluate = (
        term(f"evaluate {kind}"),
        term("graphs"),
        *fits("evaluate"),
        term(f"queries {kind}"),
        Term("two_hop", labels.evaluated * walked),
    )
    return [
        Stage(
            f"embed {name}",
            "epochs × entries, where a network is on",
            (term(f"embed {kind}"), *networks),
            need=need_gib("snapshot", size) if networks else 0.0,
            memory=(term(f"embed {kind}", quantity="memory"),),
            mapped=graph if networks else (),
            bounded_by="batches of neighbourhoods; one vector a user",
            spread_by="training.launcher" if networks else "",
        ),
        Stage(
            f"sources {name}",
            "users, items and interactions",
            (term(f"sources {kind}"), *fits("sources")),
            need=need_gib("sources", size),
            output=(term(f"sources {kind}", quantity="output"),),
            bounded_by="users and items",
            spread_by="Spark",
        ),
        Stage(
            f"index {name}",
            "vectors × dimensions, above index.exact_search_max_items",
            (term(f"index {kind}"), *(Term("index", each) for each in indexed)),
            memory=(
                term(f"index {kind}", quantity="memory"),
                *(Term("vectors", each) for each in indexed),
            ),
            output=tuple(Term("vectors", each) for each in indexed),
            bounded_by="index.memory_mb",
            spread_by="Spark",
            divided_by="index.shards",
        ),
        Stage(
            f"rank {name}",
            "windows × (graph + sources); labels up to ranker.max_rows",
            rank,
            need=need_gib("rank", size),
            mapped=graph,
            spread_by="Spark",
            bounded_by="ranker.max_rows; one window's graph, mapped",
        ),
        Stage(
            f"evaluate {name}",
            f"graph + sources; queries up to {EVALUATED:,}",
            evaluate,
            need=need_gib("evaluate", size),
            mapped=graph,
            spread_by="Spark",
            bounded_by=f"{EVALUATED:,} queries; the window's graph, mapped",
        ),
    ]


def need_gib(step: str, size: Size) -> float:
    """What the build says that a step needs before it starts it."""
    records = size.entries / 2 + size.interactions
    return NEEDS[step].bytes(round(size.users), round(records)) / 2**30


def _candidates(name: str, surface: SurfaceConfig, workload: Workload) -> Stage:
    """Candidates of every user, kept in a store by ``nextedge publish``."""
    size, kind = workload.size, surface.kind
    parts = [Term(f"publish {kind}", size.users * reach(size, surface))]
    if kind == PEOPLE:
        parts.append(Term("two_hop", size.wedges))
    parts += [Term("search", each, size.users) for each in vectors(kind, surface, size)]
    return Stage(
        f"candidates {name}",
        f"users × candidates{', and two-hop paths (Σ degree²)' if kind == PEOPLE else ''}",
        tuple(parts),
        memory=(Term(f"publish {kind}", 0.0),),
        mapped=(Term("snapshot", size.records), Term(f"sources {kind}", size.nodes)),
        bounded_by="64 users at a time, over the mapped release",
        spread_by="publish --partition",
        processes=True,
    )


def vectors(kind: str, surface: SurfaceConfig, size: Size) -> list[float]:
    """Vectors × dimensions of each embedding that is searched through an index."""
    dimensions = {}
    if kind == ITEMS and _is_on(surface, "als", default=True):
        dimensions["als"] = 256
    for model, width in _TRAINED.items():
        if _is_on(surface, model, default=False):
            dimensions[model] = width
    many = size.items if kind == ITEMS else size.users
    if many <= surface.index.exact_search_max_items:
        return []
    found = []
    for name, width in dimensions.items():
        options = surface.sources[name].options if name in surface.sources else {}
        found.append(many * float(options.get("dimensions", width)))
    return found


def _fits(kind: str, surface: SurfaceConfig, coefficients: Coefficients) -> list[str]:
    """Laws of the sources that are fitted: those that were measured and are not switched off."""
    prefix = f"cpu fit {kind} "
    names = [law.removeprefix(prefix) for law in coefficients.laws if law.startswith(prefix)]
    return [f"fit {kind} {name}" for name in sorted(names) if _is_on(surface, name, default=True)]


def _networks(surface: SurfaceConfig, size: Size, coefficients: Coefficients) -> list[Term]:
    """Training of the networks that are on and were measured, for all their epochs."""
    found = []
    for name in _TRAINED:
        if _is_on(surface, name, default=False):
            options = surface.sources[name].options
            epochs = float(options.get("trainer.epochs", 20))
            found.append(Term(f"network {name}", size.records, epochs))
    return found


def _is_on(surface: SurfaceConfig, source: str, *, default: bool) -> bool:
    setting = surface.sources.get(source)
    return default if setting is None else setting.enabled
