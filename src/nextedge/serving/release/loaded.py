"""A loaded release: memory-mapped arrays and one line a surface, shared by all requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nextedge.config import RENAMED_SETTINGS, Config, SurfaceConfig
from nextedge.data.ids import IdMap, arrow_positions
from nextedge.errors import InputError, UnknownSurfaceError, nearest
from nextedge.events.state.overlay import Overlay
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Entities, Snapshot, relation_of
from nextedge.index.sharded import Searcher, is_sharded, load_index, saved_bounds
from nextedge.models.rankers.learners import load_rankers
from nextedge.policy.policy import Policy
from nextedge.policy.reasons import Reasons
from nextedge.ranking.pipeline import RankingPipeline, build_pipeline, declared_features
from nextedge.ranking.reranker import FOLDER as RERANKER
from nextedge.ranking.reranker import Reranker
from nextedge.releases.manifest import Release
from nextedge.retrieval.fusion import FILE as FUSION
from nextedge.retrieval.fusion import Fusion
from nextedge.retrieval.model_source import ModelSource
from nextedge.retrieval.source import load_sources
from nextedge.serving.release.invalidation import Touched
from nextedge.serving.release.live_counters import LiveFacts
from nextedge.serving.shards.client import RemoteIndex, ShardClient
from nextedge.types import UNKNOWN, IndexArray

SLOWER, FASTER = 0.1, 0.5
"""Weight of a time that is longer, or shorter, than expected."""


@dataclass
class StageLatency:
    """Milliseconds that each stage is expected to take, by its latest times."""

    expected_ms: dict[str, float] = field(default_factory=dict)

    def took(self, stage: str, spent_ms: float) -> None:
        """Learn from a stage that ended."""
        before = self.expected_ms.get(stage, spent_ms)
        # one hiccup must not count for long
        weight = SLOWER if spent_ms > before else FASTER
        self.expected_ms[stage] = before + weight * (spent_ms - before)

    def missed(self, stages: tuple[str, ...]) -> None:
        """Expect a little less of stages that were left out, so that they run again some time."""
        for stage in stages:
            self.expected_ms[stage] = self.expected_ms.get(stage, 0.0) * (1 - SLOWER)


@dataclass(frozen=True, eq=False)
class LoadedSurface:
    """What answers the requests of one surface."""

    name: str
    settings: SurfaceConfig
    line: RankingPipeline
    policies: Mapping[str | None, Policy]
    """By context; None stands for every other."""
    reasons: Reasons
    pace: StageLatency = field(default_factory=StageLatency)

    @property
    def policy(self) -> Policy:
        """The rules where no context changes them."""
        return self.policies[None]

    def policy_in(self, context: str | None) -> Policy:
        """The rules in a context."""
        return self.policies.get(context, self.policy)

    def over(self, snapshot: Snapshot) -> LoadedSurface:
        """The same over a snapshot of the same entities with other edges."""
        scope = self.line.scope.over(snapshot)
        line = self.line.over(scope)
        policies = {
            context: Policy(scope, policy.settings) for context, policy in self.policies.items()
        }
        reasons = Reasons(dict(line.sources), self.reasons.display)
        return replace(self, line=line, policies=policies, reasons=reasons)

    @property
    def candidate_table(self) -> str:
        """``users`` or ``items``: what is recommended."""
        return "users" if self.line.scope.relation.self_typed else "items"


class LoadedRelease:
    """One release, opened for serving.

    Args:
        shards: the processes that hold indexes in shards; None to hold them here.
    """

    def __init__(self, release: Release, config: Config, shards: ShardClient | None = None) -> None:
        self.release = release
        self._shards = shards
        self.entities = Entities.load(release.path / "entities")
        self.snapshot = Snapshot.load(release.path / "snapshot", self.entities)
        self._displays = {
            table: _display(release.path / "entities" / f"{table}_display.arrow")
            for table in ("users", "items")
        }
        self.touched = Touched(self.entities.users, self.entities.items, self.snapshot.connections)
        self.token = object()
        """Another for every load, and for every set of live edges."""
        self.base = self
        """As it was loaded, where this is the same over live edges."""
        self.live_as_of: object = None
        """Which live edges are in its graphs."""
        self.editions: np.ndarray | None = None
        """uint64[U]: differs with the live edges that touch a user's lists; None without any."""
        self.edges = ""
        """The same for each set of live edges in its graphs; empty for none."""
        self.ends: IndexArray = np.zeros(0, np.int32)
        """Users at the ends of live edges."""
        self.live = LiveFacts(self.snapshot)
        self._gone: dict[str, tuple[int, IndexArray]] = {}
        self._others: dict[tuple[str, str], IdMap] = {}
        self.surfaces = {name: self._load(name, config) for name in release.surfaces}

    @property
    def id(self) -> str:
        """Id of the release."""
        return self.release.id

    def edition(self, position: int) -> int:
        """Differs with the live edges that touch a user's lists; 0 where none does."""
        if self.editions is None or position == UNKNOWN:
            return 0
        return int(self.editions[position])

    def list_name(self, surface: str, position: int) -> str:
        """Under what a user's list is kept: another for every edition of it."""
        edition = self.edition(position)
        name = f"{self.id}/{surface}/{position}"
        return f"{name}@{edition:x}" if edition else name

    def newly_touched(self, before: LoadedRelease, most: int) -> IndexArray:
        """int32: users whose lists the latest live edges touch: all ends of edges, ``most`` others."""
        size = len(self.entities.users)
        now, then = (
            np.zeros(size, np.uint64) if each.editions is None else each.editions
            for each in (self, before)
        )
        touched = np.flatnonzero(now != then).astype(np.int32)
        is_end = np.isin(touched, np.concatenate((self.ends, before.ends)))
        return np.concatenate((touched[is_end], touched[~is_end][:most]))

    def surface(self, name: str) -> LoadedSurface:
        """A surface by name; raises UnknownSurfaceError with those of the release."""
        try:
            return self.surfaces[name]
        except KeyError:
            raise UnknownSurfaceError(
                f"no surface {name!r} in release {self.id}; {nearest(name, self.surfaces)}"
            ) from None

    def positions_from(self, release_id: str, table: str, positions: Sequence[int]) -> IndexArray:
        """int32[n]: where another release's users or items stand in this one, UNKNOWN: nowhere.

        Raises:
            InputError: that release is gone, or never had as many.
        """
        places = np.asarray(positions)
        ids = self.entities.users if table == "users" else self.entities.items
        if release_id != self.id:
            path = self.release.path.parent / release_id / "entities" / f"{table}.arrow"
            theirs = self._others.get((release_id, table))
            if theirs is None:
                if Path(release_id).name != release_id or not path.exists():
                    raise InputError("cursor: its release is gone; ask for the first page again")
                theirs = self._others[release_id, table] = IdMap.load(path)
            return ids.positions(theirs.identifiers(_within(places, len(theirs))))
        return _within(places, len(ids))

    def gone(self, overlay: Overlay, kind: str) -> IndexArray:
        """Positions of those whom nobody is shown by what was recorded since, ascending."""
        version = overlay.gone_version
        kept = self._gone.get(kind)
        if kept is None or kept[0] != version:
            names = sorted(overlay.gone(kind))
            ids = self.entities.users if kind == "people" else self.entities.items
            places = ids.positions(names) if names else np.zeros(0, np.int32)
            kept = self._gone[kind] = version, np.unique(places[places >= 0])
        return kept[1]

    def display(self, table: str, position: int) -> str:
        """What a person reads for a user or item: name, title, or the id."""
        names = self._displays[table]
        shown = names[position].as_py() if names is not None else None
        if shown:
            return str(shown)
        ids = self.entities.users if table == "users" else self.entities.items
        return str(ids.identifier(position))

    def displays(self, table: str, positions: IndexArray) -> list[str]:
        """``display`` of many."""
        names = self._displays[table]
        if names is None:
            return [self.display(table, int(position)) for position in positions]
        shown = names.take(arrow_positions(positions)).to_pylist()
        return [
            str(name) if name else self.display(table, int(position))
            for name, position in zip(shown, positions, strict=True)
        ]

    def _load(self, name: str, config: Config) -> LoadedSurface:
        built = _built_with(self.release)
        settings = built.surface(name)
        if name in config.surfaces:  # policy and k may change between builds
            live = config.surfaces[name]
            settings = settings.model_copy(
                update={"policy": live.policy, "k": live.k, "contexts": live.contexts}
            )
        folder = self.release.path / "surfaces" / name
        scope = Scope(self.snapshot, relation_of(settings))
        features = declared_features(scope, settings, built.features.exclude)
        line = build_pipeline(scope, settings, load_sources(folder / "sources"), features=features)
        for source in line.sources.values():
            if isinstance(source, ModelSource) and (folder / "index" / source.name).exists():
                source.index = self._index(folder / "index" / source.name, name, source)
        line = replace(line, fusion=Fusion.load(folder / "ranker" / FUSION))
        rankers = load_rankers(folder / "ranker")
        if rankers is not None:
            reranker = Reranker.load(folder / "ranker" / RERANKER, scope, served=True)
            line = replace(line.with_ranker(*rankers), reranker=reranker)
        reasons = Reasons(dict(line.sources), self.display)
        policies = {
            context: Policy(scope, settings.in_context(context)[1])
            for context in (None, *settings.contexts)
        }
        return LoadedSurface(name, settings, line, policies, reasons)

    def _index(self, folder: Path, surface: str, source: ModelSource) -> Searcher:
        if self._shards is not None and is_sharded(folder):
            bounds = saved_bounds(folder)
            return RemoteIndex(self._shards, self.id, surface, source.name, bounds)
        return load_index(folder, source.arrays["candidate"])

    def evaluation(self, surface: str) -> Mapping[str, Any]:
        """The evaluation that was made when the release was built."""
        path = self.release.path / "surfaces" / surface / "evaluation.json"
        loaded: Mapping[str, Any] = json.loads(path.read_text())
        return loaded


def _built_with(release: Release) -> Config:
    """The configuration that a release was built with."""
    # an older version may have built it, and recorded settings under their former names
    return Config.model_validate({**_renamed(release.manifest["config"]), "base": "."})


def _renamed(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {RENAMED_SETTINGS.get(k, k): _renamed(value) for k, value in settings.items()}
    return settings


def _within(positions: np.ndarray, size: int) -> IndexArray:
    """int32: the positions; raises InputError where one is beyond the map, as in no cursor of ours."""
    if len(positions) and positions.max() >= size:
        raise InputError("cursor: not one of ours")
    return positions.astype(np.int32)


def _display(path: Path) -> pa.Array | None:
    if not path.exists():
        return None
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all().column("display").combine_chunks()
