"""A loaded release: memory-mapped arrays, and one ranking pipeline a surface."""

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
from nextedge.serving.release.invalidation import Invalidation
from nextedge.serving.release.live_counters import LiveFacts
from nextedge.serving.shards.client import RemoteIndex, ShardClient
from nextedge.types import UNKNOWN, IndexArray

_SLOWER, _FASTER = 0.1, 0.5
"""Weight of a latency above, and below, the expected one: one hiccup must not count for long."""


@dataclass
class StageLatency:
    """The expected milliseconds of each stage: a moving average of its latency."""

    expected_ms: dict[str, float] = field(default_factory=dict)

    def took(self, stage: str, spent_ms: float) -> None:
        """Update the expected time of a stage that ended."""
        before = self.expected_ms.get(stage, spent_ms)
        weight = _SLOWER if spent_ms > before else _FASTER
        self.expected_ms[stage] = before + weight * (spent_ms - before)

    def missed(self, stages: tuple[str, ...]) -> None:
        """Lower the expected times of stages that were left out."""
        for stage in stages:  # else a stage that was slow once would never run again
            self.expected_ms[stage] = self.expected_ms.get(stage, 0.0) * (1 - _SLOWER)


@dataclass(frozen=True, eq=False)
class LoadedSurface:
    """The ranking pipeline, policies and reasons of one surface."""

    name: str
    settings: SurfaceConfig
    line: RankingPipeline
    policies: Mapping[str | None, Policy]
    """By context; None is for all other contexts."""
    reasons: Reasons
    pace: StageLatency = field(default_factory=StageLatency)

    @property
    def policy(self) -> Policy:
        """The policy without a context."""
        return self.policies[None]

    def policy_in(self, context: str | None) -> Policy:
        """The policy in a context."""
        return self.policies.get(context, self.policy)

    def over(self, snapshot: Snapshot) -> LoadedSurface:
        """The same surface over a snapshot of the same entities with other edges."""
        scope = self.line.scope.over(snapshot)
        line = self.line.over(scope)
        policies = {
            context: Policy(scope, policy.settings) for context, policy in self.policies.items()
        }
        reasons = Reasons(dict(line.sources), self.reasons.display)
        return replace(self, line=line, policies=policies, reasons=reasons)

    @property
    def candidate_table(self) -> str:
        """The table of the candidates: ``users`` or ``items``."""
        return "users" if self.line.scope.relation.self_typed else "items"


class LoadedRelease:
    """One release, opened for serving.

    Args:
        shards: the processes that serve index shards; None loads the indexes here.
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
        users, items = self.entities.users, self.entities.items
        self.invalidation = Invalidation(users, items, self.snapshot.connections)
        self.token = object()
        """Identity of this load and its live edges."""
        self.base = self
        """The release as loaded, without live edges."""
        self.live_as_of: object = None
        """The version of the live edges in the graphs."""
        self.editions: np.ndarray | None = None
        """uint64[U]: a hash of the live edges that affect a user's lists; None without any."""
        self.edges = ""
        """Id of the set of live edges in the graphs; empty for none."""
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
        """A hash of the live edges that affect a user's lists; 0 without any."""
        if self.editions is None or position == UNKNOWN:
            return 0
        return int(self.editions[position])

    def list_name(self, surface: str, position: int) -> str:
        """The name under which a store has a user's list; it changes with the edition."""
        edition = self.edition(position)
        name = f"{self.id}/{surface}/{position}"
        return f"{name}@{edition:x}" if edition else name

    def changed_users(self, before: LoadedRelease, most: int) -> IndexArray:
        """int32: users whose lists the latest live edges affect: all ends of edges, ``most`` others."""
        none = np.zeros(len(self.entities.users), np.uint64)
        now, then = (none if r.editions is None else r.editions for r in (self, before))
        users = np.flatnonzero(now != then).astype(np.int32)
        is_end = np.isin(users, np.concatenate((self.ends, before.ends)))
        return np.concatenate((users[is_end], users[~is_end][:most]))

    def surface(self, name: str) -> LoadedSurface:
        """A surface by name; raises UnknownSurfaceError, which names the release's surfaces."""
        try:
            return self.surfaces[name]
        except KeyError:
            raise UnknownSurfaceError(
                f"no surface {name!r} in release {self.id}; {nearest(name, self.surfaces)}"
            ) from None

    def positions_from(self, release_id: str, table: str, positions: Sequence[int]) -> IndexArray:
        """int32[n]: positions of another release in this one; UNKNOWN if it lacks the id.

        Raises:
            InputError: that release is deleted, or has no such positions.
        """
        theirs = np.asarray(positions)
        ids = self.entities.users if table == "users" else self.entities.items
        if release_id != self.id:
            path = self.release.path.parent / release_id / "entities" / f"{table}.arrow"
            other_ids = self._others.get((release_id, table))
            if other_ids is None:
                # the caller's text is part of a path: it must not lead out of the folder
                if Path(release_id).name != release_id or not path.exists():
                    raise InputError("cursor: its release is gone; ask for the first page again")
                other_ids = self._others[release_id, table] = IdMap.load(path)
            return ids.positions(other_ids.identifiers(_within(theirs, len(other_ids))))
        return _within(theirs, len(ids))

    def gone(self, overlay: Overlay, kind: str) -> IndexArray:
        """Positions of the candidates that live state hides from all users, ascending."""
        version = overlay.gone_version
        cached = self._gone.get(kind)
        # looked up again only after an event: departed users may be many
        if cached is None or cached[0] != version:
            names = sorted(overlay.gone(kind))
            ids = self.entities.users if kind == "people" else self.entities.items
            positions = ids.positions(names) if names else np.zeros(0, np.int32)
            cached = self._gone[kind] = version, np.unique(positions[positions >= 0])
        return cached[1]

    def display(self, table: str, position: int) -> str:
        """The display name of a user or item: name, title, or the id."""
        names = self._displays[table]
        name = names[position].as_py() if names is not None else None
        if name:
            return str(name)
        ids = self.entities.users if table == "users" else self.entities.items
        return str(ids.identifier(position))

    def displays(self, table: str, positions: IndexArray) -> list[str]:
        """The display names of several users or items."""
        names = self._displays[table]
        if names is None:
            return [self.display(table, int(position)) for position in positions]
        taken = names.take(arrow_positions(positions)).to_pylist()
        return [
            str(name) if name else self.display(table, int(position))
            for name, position in zip(taken, positions, strict=True)
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
        """The evaluation report of the release's build."""
        path = self.release.path / "surfaces" / surface / "evaluation.json"
        loaded: Mapping[str, Any] = json.loads(path.read_text())
        return loaded


def _built_with(release: Release) -> Config:
    # an older version may have built it, and recorded settings under their former names
    return Config.model_validate({**_renamed(release.manifest["config"]), "base": "."})


def _renamed(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {RENAMED_SETTINGS.get(k, k): _renamed(value) for k, value in settings.items()}
    return settings


def _within(positions: np.ndarray, size: int) -> IndexArray:
    """The positions as int32; raises InputError if one is out of range."""
    if len(positions) and positions.max() >= size:
        raise InputError("cursor: not one of ours")
    return positions.astype(np.int32)


def _display(path: Path) -> pa.Array | None:
    if not path.exists():
        return None
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all().column("display").combine_chunks()
