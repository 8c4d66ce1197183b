"""Taking one person out of every release on disk.

A release never changes: each is written anew without the person, under a name of its own, and
takes the old one's place. Positions stay, so that everything else in it stays true; the
person's is empty: no id, no name, no attribute, no edge, shown to nobody.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nextedge.data.ids import IdMap, emptied
from nextedge.features.backfill import without_user
from nextedge.graph.attributes import Attributes, Category, Encoded, Instant, Number, Tags, Text
from nextedge.graph.csr import Graph
from nextedge.graph.propagate import SparseRows
from nextedge.graph.snapshot import Entities, Snapshot
from nextedge.releases.manifest import Release, seal
from nextedge.releases.repository import Releases
from nextedge.storage.files import writing
from nextedge.types import BoolArray, Identifier, IntArray

_CHECK = "tables/check.json"
_OF_PEOPLE = ("connections", "profile_views", "blocks", "hidden_connections")
_FROM_PEOPLE = ("engagements", "occasions")
_TO_PEOPLE = ("engaged_by", "occasions_by")
_SPARSE = {
    "profile": (("values_", True, False), ("members_", False, True)),
    "segment": (("values_", True, False),),
    "random_walk": (("", True, True),),
}
"""Source → prefix of its sparse arrays, and whether rows and columns are people."""


def erase_from_releases(releases: Releases, identifier: Identifier) -> int:
    """Write every release that knows a person anew without them; returns how many did.

    Can be stopped anywhere and run again.
    """
    _tidy(releases)
    changed = 0
    for release_id in releases.names():
        release = releases.get(release_id)
        place = IdMap.load(release.path / "entities" / "users.arrow").position(identifier)
        mentioned = _mentions(release.path / _CHECK, identifier)
        if place >= 0 or mentioned:
            _rewrite(releases, release, place, mentioned)
            changed += 1
    return changed


def _tidy(releases: Releases) -> None:
    """End what a stopped run began; whoever holds the build lock is alone."""
    releases.clear()
    for release in releases.all():
        replaced = release.manifest.get("replaces")
        if replaced and replaced in releases.names():
            releases.succeed(replaced, release.id)


def _mentions(path: Path, identifier: Identifier) -> bool:
    return path.exists() and str(identifier) in path.read_text(encoding="utf-8")


def _rewrite(releases: Releases, release: Release, place: int, mentioned: bool) -> None:
    base, taken, number = release.id.split("-without-")[0], releases.names(), 1
    while (final := f"{base}-without-{number}") in taken:
        number += 1
    partial = releases.directory / f".{final}.{os.getpid()}"
    with writing(partial):
        shutil.copytree(release.path, partial)
        if mentioned:
            (partial / _CHECK).write_text("{}")
        if place >= 0:
            _erase(partial, place)
        forgotten = int(release.manifest.get("forgotten", 0)) + 1
        seal(partial, {**release.manifest, "forgotten": forgotten, "replaces": release.id})
        releases.add(partial, final)
        releases.succeed(release.id, final)


def _erase(path: Path, place: int) -> None:
    """Empty one person's position in the files of a release."""
    entities = Entities.load(path / "entities")
    users = len(entities.users)
    snapshot = _without_edges(Snapshot.load(path / "snapshot", entities), place)
    ids, attributes = entities.users.without(place), _blank(entities.user_attributes, place)
    shutil.rmtree(path / "snapshot")
    (path / "snapshot").mkdir()
    snapshot.save(path / "snapshot")
    shutil.rmtree(path / "entities" / "user_attributes")
    attributes.save(path / "entities" / "user_attributes")
    (path / "entities" / "users.arrow").unlink()
    ids.save(path / "entities" / "users.arrow")
    _blank_display(path / "entities" / "users_display.arrow", place)
    for folder in path.glob("surfaces/*/sources/*"):
        _blank_source(folder, place, users)


def _without_edges(snapshot: Snapshot, place: int) -> Snapshot:
    graphs: dict[str, Any] = {
        name: _without(
            getattr(snapshot, name),
            row=name not in _TO_PEOPLE and place,
            column=name not in _FROM_PEOPLE and place,
        )
        for name in (*_OF_PEOPLE, *_FROM_PEOPLE, *_TO_PEOPLE)
    }
    known, communities = np.array(snapshot.known_users), np.array(snapshot.communities)
    known[place], communities[place] = False, -1
    counters = without_user(snapshot.counters, place)
    return replace(
        snapshot, **graphs, known_users=known, communities=communities, counters=counters
    )


def _kept(
    indptr: IntArray, indices: np.ndarray, row: int | bool, column: int | bool
) -> tuple[IntArray, BoolArray]:
    """Row bounds without one row's entries and one column's, and which entries are kept."""
    kept = np.ones(len(indices), bool)
    if row is not False:
        kept[indptr[row] : indptr[row + 1]] = False
    if column is not False:
        kept &= np.asarray(indices) != column
    return np.concatenate(([0], np.cumsum(kept)))[np.asarray(indptr)].astype(np.int64), kept


def _without(graph: Graph, row: int | bool, column: int | bool) -> Graph:
    indptr, kept = _kept(graph.indptr, graph.indices, row, column)
    return Graph(
        indptr,
        graph.indices[kept],
        graph.weight[kept],
        graph.first[kept],
        graph.last[kept],
        graph.targets,
    )


def _blank(attributes: Attributes, place: int) -> Attributes:
    columns = {name: _blank_column(column, place) for name, column in attributes.columns.items()}
    return Attributes(attributes.rows, attributes.kinds, columns)


def _blank_column(column: Encoded, place: int) -> Encoded:
    if isinstance(column, Number):
        return Number(_with(column.values, place, np.nan))
    if isinstance(column, Instant):
        return Instant(_with(column.values, place, 0))
    if isinstance(column, Category):
        codes = _with(column.codes, place, -1)
        return Category(codes, _used(column.values, column.codes[place : place + 1], codes))
    rows = column.rows
    indptr, kept = _kept(rows.indptr, rows.indices, place, False)
    left = SparseRows(indptr, rows.indices[kept], rows.values[kept], rows.columns)
    if isinstance(column, Text):
        return Text(left)
    return Tags(left, _used(column.values, rows.indices[~kept], left.indices))


def _with(values: np.ndarray, place: int, value: float) -> np.ndarray:
    changed = np.array(values)
    changed[place] = value
    return changed


def _used(values: pa.Array, gone: np.ndarray, left: np.ndarray) -> pa.Array:
    """The values without those that only the person had; codes stay."""
    alone = np.setdiff1d(gone[gone >= 0], left)
    mask = np.zeros(len(values), bool)
    mask[alone] = True
    return emptied(values, mask) if len(alone) else values


def _blank_display(path: Path, place: int) -> None:
    if not path.exists():
        return
    with pa.OSFile(str(path)) as source:
        names = pa.ipc.open_file(source).read_all().column("display").combine_chunks()
    mask = np.zeros(len(names), bool)
    mask[place] = True
    shown = pa.table({"display": emptied(names, mask)})
    path.unlink()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, shown.schema) as writer:
        writer.write_table(shown)


def _blank_source(folder: Path, place: int, users: int) -> None:
    """No vector, and no row of its own, for the position in what a source has fitted."""
    people = folder.parents[1].name
    for name in ("query", "candidate"):
        path = folder / f"{name}.npy"
        vectors = np.load(path, mmap_mode="r") if path.exists() else None
        if (
            vectors is None
            or vectors.shape[0] != users
            or (name == "candidate" and people == "items")
        ):
            continue
        _replace(path, _with(vectors, place, 0.0))
    for prefix, row, column in _SPARSE.get(folder.name, ()):
        parts = {p: folder / f"{prefix}{p}.npy" for p in ("indptr", "indices", "values")}
        if not parts["indptr"].exists():
            continue
        indptr, indices = (np.load(parts[p]) for p in ("indptr", "indices"))
        bounds, kept = _kept(indptr, indices, row and place, column and place)
        _replace(parts["indptr"], bounds.astype(indptr.dtype))
        for name in ("indices", "values"):
            if parts[name].exists():
                _replace(parts[name], np.load(parts[name])[kept])


def _replace(path: Path, values: np.ndarray) -> None:
    path.unlink()
    np.save(path, values)
