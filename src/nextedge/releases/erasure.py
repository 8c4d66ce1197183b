"""Erase one user from every release on disk.

A release never changes. A copy without the user gets a new id and replaces the release. The
positions of all users stay, so that the other arrays stay valid; the position of the erased user
is empty: no id, name, attribute or edge, and never recommendable.
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
_OF_USERS = ("connections", "profile_views", "blocks", "hidden_connections")
_FROM_USERS = ("engagements", "occasions")
_TO_USERS = ("engaged_by", "occasions_by")
_SPARSE = {
    "profile": (("values_", True, False), ("members_", False, True)),
    "segment": (("values_", True, False),),
    "random_walk": (("", True, True),),
}
"""Source → prefix of its sparse arrays, and whether rows and columns are users."""


def erase_from_releases(releases: Releases, identifier: Identifier) -> int:
    """Rewrite every release that has a user without that user; returns how many it rewrote.

    An interrupted run can be repeated.
    """
    _finish_interrupted_run(releases)
    changed = 0
    for release_id in releases.names():
        release = releases.get(release_id)
        user = IdMap.load(release.path / "entities" / "users.arrow").position(identifier)
        check = release.path / _CHECK
        # The report of the data check quotes ids of rejected rows.
        mentioned = check.exists() and str(identifier) in check.read_text(encoding="utf-8")
        if user >= 0 or mentioned:
            _rewrite(releases, release, user, mentioned)
            changed += 1
    return changed


def _finish_interrupted_run(releases: Releases) -> None:
    releases.clear()
    for release in releases.all():
        replaced = release.manifest.get("replaces")
        if replaced and replaced in releases.names():
            releases.succeed(replaced, release.id)


def _rewrite(releases: Releases, release: Release, user: int, mentioned: bool) -> None:
    base, names, number = release.id.split("-without-")[0], releases.names(), 1
    while (final := f"{base}-without-{number}") in names:
        number += 1
    partial = releases.directory / f".{final}.{os.getpid()}"
    with writing(partial):
        shutil.copytree(release.path, partial)
        if mentioned:
            (partial / _CHECK).write_text("{}")
        if user >= 0:
            _erase(partial, user)
        forgotten = int(release.manifest.get("forgotten", 0)) + 1
        seal(partial, {**release.manifest, "forgotten": forgotten, "replaces": release.id})
        releases.add(partial, final)
        releases.succeed(release.id, final)


def _erase(path: Path, user: int) -> None:
    """Empty the position of one user in the files of a partial release."""
    folder = path / "entities"
    entities = Entities.load(folder)
    users = len(entities.users)
    snapshot = _without_edges(Snapshot.load(path / "snapshot", entities), user)
    ids, attributes = entities.users.without(user), _blank(entities.user_attributes, user)
    # Remove before saving: the loaded arrays map these files, and must not see new content.
    shutil.rmtree(path / "snapshot")
    (path / "snapshot").mkdir()
    snapshot.save(path / "snapshot")
    shutil.rmtree(folder / "user_attributes")
    attributes.save(folder / "user_attributes")
    (folder / "users.arrow").unlink()
    ids.save(folder / "users.arrow")
    _blank_display(folder / "users_display.arrow", user)
    for source in path.glob("surfaces/*/sources/*"):
        _blank_source(source, user, users)


def _without_edges(snapshot: Snapshot, user: int) -> Snapshot:
    changed: dict[str, Any] = {
        name: _without(
            getattr(snapshot, name),
            row=name not in _TO_USERS and user,
            column=name not in _FROM_USERS and user,
        )
        for name in (*_OF_USERS, *_FROM_USERS, *_TO_USERS)
    }
    changed["known_users"] = _with(snapshot.known_users, user, False)
    changed["communities"] = _with(snapshot.communities, user, -1)
    return replace(snapshot, **changed, counters=without_user(snapshot.counters, user))


def _without_entries(
    indptr: IntArray, indices: np.ndarray, row: int | bool, column: int | bool
) -> tuple[IntArray, BoolArray]:
    """Row bounds without the entries of a row and a column, and the mask of the other entries."""
    other = np.ones(len(indices), bool)
    if row is not False:
        other[indptr[row] : indptr[row + 1]] = False
    if column is not False:
        other &= np.asarray(indices) != column
    return np.concatenate(([0], np.cumsum(other)))[np.asarray(indptr)].astype(np.int64), other


def _without(graph: Graph, row: int | bool, column: int | bool) -> Graph:
    indptr, other = _without_entries(graph.indptr, graph.indices, row, column)
    weight, first, last = graph.weight[other], graph.first[other], graph.last[other]
    return Graph(indptr, graph.indices[other], weight, first, last, graph.targets)


def _blank(attributes: Attributes, user: int) -> Attributes:
    columns = {name: _blank_column(column, user) for name, column in attributes.columns.items()}
    return Attributes(attributes.rows, attributes.kinds, columns)


def _blank_column(column: Encoded, user: int) -> Encoded:
    if isinstance(column, Number):
        return Number(_with(column.values, user, np.nan))
    if isinstance(column, Instant):
        return Instant(_with(column.values, user, 0))
    if isinstance(column, Category):
        codes = _with(column.codes, user, -1)
        return Category(codes, _used(column.values, column.codes[user : user + 1], codes))
    rows = column.rows
    indptr, other = _without_entries(rows.indptr, rows.indices, user, False)
    rest = SparseRows(indptr, rows.indices[other], rows.values[other], rows.columns)
    if isinstance(column, Text):
        return Text(rest)
    return Tags(rest, _used(column.values, rows.indices[~other], rest.indices))


def _with(values: np.ndarray, user: int, value: float) -> np.ndarray:
    changed = np.array(values)
    changed[user] = value
    return changed


def _used(values: pa.Array, removed: np.ndarray, rest: np.ndarray) -> pa.Array:
    """The values, those that only the erased user had emptied; the codes of the others stay."""
    unused = np.setdiff1d(removed[removed >= 0], rest)
    mask = np.zeros(len(values), bool)
    mask[unused] = True
    return emptied(values, mask) if len(unused) else values


def _blank_display(path: Path, user: int) -> None:
    if not path.exists():
        return
    with pa.OSFile(str(path)) as source:
        names = pa.ipc.open_file(source).read_all().column("display").combine_chunks()
    table = pa.table({"display": emptied(names, np.arange(len(names)) == user)})
    path.unlink()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _blank_source(folder: Path, user: int, users: int) -> None:
    """Empty the vector and the rows of one user in the arrays of a fitted source."""
    of_items = folder.parents[1].name == "items"
    for name in ("query", "candidate"):
        path = folder / f"{name}.npy"
        vectors = np.load(path, mmap_mode="r") if path.exists() else None
        # Item vectors stay: only an array with a row a user belongs to users.
        if vectors is not None and len(vectors) == users and not (name == "candidate" and of_items):
            _replace(path, _with(vectors, user, 0.0))
    for prefix, row, column in _SPARSE.get(folder.name, ()):
        parts = {p: folder / f"{prefix}{p}.npy" for p in ("indptr", "indices", "values")}
        if not parts["indptr"].exists():
            continue
        indptr, indices = (np.load(parts[p]) for p in ("indptr", "indices"))
        bounds, other = _without_entries(indptr, indices, row and user, column and user)
        _replace(parts["indptr"], bounds.astype(indptr.dtype))
        for name in ("indices", "values"):
            if parts[name].exists():
                _replace(parts[name], np.load(parts[name])[other])


def _replace(path: Path, values: np.ndarray) -> None:
    path.unlink()
    np.save(path, values)
