"""Cold-start candidates: those of users without an edge in the release, from live state.

The ranker has nothing to rank by for them. So contacts, connections of the first connections,
members who share stated values, and items like the first ones come before popular candidates.
Policy and exclusions follow as for every list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge.events.state.overlay import Overlay
from nextedge.graph.attributes import Attributes, Category, Tags
from nextedge.graph.propagate import SparseRows, top_products
from nextedge.graph.scope import Scope, cached_per_release
from nextedge.policy.reasons import Reason, best_middle, mutual_reason
from nextedge.retrieval.item_knn import ItemKnn
from nextedge.retrieval.popular import value_members
from nextedge.retrieval.profile import homophily
from nextedge.schema import ColumnKind
from nextedge.serving.cold_start.merge import NOTHING, Seeded, SeededBatch, SeedEvidence
from nextedge.serving.contacts.address_books import Contacts
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import UNKNOWN, Candidates, Identifier, IndexArray, Requests

_MAX_CANDIDATES = 1000  # of one kind of evidence
_SAMPLED_EDGES = 50_000
# small, as popularity orders the members of a value, not the values
_TIE_WEIGHT = 1e-3
# a weight of 0 would leave the candidates out of the list
_MIN_LIFT = 0.01
# a contact outranks any number of mutual connections, and one of those a shared school
_CONTACT, _CONNECTION, _STATED = 4.0, 2.0, 0.0


def seeded(
    release: LoadedRelease,
    overlay: Overlay,
    contacts: Contacts | None,
    surface: LoadedSurface,
    user_id: Identifier,
    context: Mapping[str, str],
    k: int,
) -> Seeded:
    """The candidates that live state gives to a user without an edge in the release.

    Args:
        context: of the request; keys that are category or tag columns count as stated values.
        k: number of results.
    """
    user, scope = _User(release, overlay, surface, str(user_id)), surface.line.scope
    if scope.relation.self_typed:
        kinds = [
            contact_matches(user, contacts),
            friends_of_friends(user),
            shared_values(user, context, "stated_profile"),
        ]
    else:
        kinds = [similar_items(user), shared_values(user, context, "stated_interests")]
    evidence = tuple(kind for kind in kinds if kind is not None)
    if not evidence:
        return NOTHING
    total = np.zeros(len(scope.recommendable))
    for kind in evidence:
        total[kind.candidate] += kind.score
    total[~np.asarray(scope.recommendable)] = 0
    order = _best(total, max(_MAX_CANDIDATES, 2 * k))  # the policy leaves some out
    return Seeded(order, total[order].astype(np.float32), evidence)


@dataclass(frozen=True, eq=False)
class _User:
    """One user in live state and in the release."""

    release: LoadedRelease
    overlay: Overlay
    surface: LoadedSurface
    name: str

    @property
    def position(self) -> int:
        return self.release.entities.users.position(self.name)

    def people(self, names: set[str]) -> IndexArray:
        """The positions of the names in the release, ascending; others are left out."""
        positions = self.release.entities.users.positions(sorted(names))
        return np.unique(positions[positions >= 0])

    def severed(self, name: str) -> IndexArray:
        """Positions of the users that nothing may link to a user: blocked, disconnected, hidden."""
        live = self.people(self.overlay.severed(name))
        position = self.release.entities.users.position(name)
        if position == UNKNOWN:
            return live
        return np.union1d(live, self.release.snapshot.blocks.row(position)).astype(np.int32)


@dataclass(frozen=True, eq=False)
class _Value:
    """A stated value, the weight of sharing it, and the positions that have it, ascending."""

    weight: float
    column: str
    value: str
    members: IndexArray


def contact_matches(user: _User, contacts: Contacts | None) -> SeedEvidence | None:
    """Members in the user's address book, and members whose address books have the user."""
    if contacts is None:
        return None
    matches = contacts.matches(user.name)
    positions = user.release.entities.users.positions([match.user_id for match in matches])
    hidden = np.union1d(user.people(set(user.overlay.absent)), user.severed(user.name))
    allowed = (positions >= 0) & ~np.isin(positions, hidden)
    allowed[allowed] = user.surface.line.scope.recommendable[positions[allowed]]
    in_book = np.array([match.in_book for match in matches], bool)
    has_user = np.array([match.has_user for match in matches], bool)
    # else a book of one real address among invented ones would tell whether its owner is a member
    if int((allowed & in_book).sum()) < contacts.settings.min_matches:
        allowed &= has_user
    if not allowed.any():
        return None
    candidate = positions[allowed]
    score = _CONTACT + (in_book & has_user)[allowed] + _popularity(user.surface, candidate)
    # the same for all: it must not tell which entry matched, and in whose book
    reason = Reason("contacts", "you may know each other")
    return SeedEvidence("contacts", candidate, score, lambda _: reason)


def friends_of_friends(user: _User) -> SeedEvidence | None:
    """Connections of the user's first connections, by Adamic-Adar; counts are exact.

    Connections that opted out, are not discoverable or are blocked on either side do not count.
    """
    overlay, snapshot = user.overlay, user.release.snapshot
    visible = user.release.entities.user_attributes.flag("discoverable", True)
    users = user.release.entities.users
    gone = overlay.absent | overlay.severed(user.name)
    circles: dict[str, IndexArray] = {}
    for friend in sorted(overlay.connected.get(user.name, set()) - gone):
        position = users.position(friend)
        if position != UNKNOWN and not visible[position]:
            continue
        old = snapshot.connections.row(position) if position != UNKNOWN else np.zeros(0, np.int32)
        circle = np.union1d(old, user.people(overlay.connected.get(friend, set())))
        circles[friend] = np.setdiff1d(circle, user.severed(friend))
    connected = np.append(user.people(set(circles)), user.position)
    total = np.zeros(len(users))
    for circle in circles.values():
        # a circle of one member would divide by 0
        total[circle] += 1 / np.log(max(len(circle), 2))
    total[connected[connected >= 0]] = 0
    candidate = _best(total, _MAX_CANDIDATES)
    if not len(candidate):
        return None
    score = _CONNECTION + total[candidate] / (total[candidate].max() + 1)

    def reason(position: int) -> Reason:
        mutual = [friend for friend, circle in circles.items() if position in circle]
        mutual.sort(key=lambda friend: (len(circles[friend]), friend))
        return mutual_reason(len(mutual), [_display(user, friend) for friend in mutual[:2]])

    return SeedEvidence("live_connections", candidate, score, reason)


def similar_items(user: _User) -> SeedEvidence | None:
    """Items similar to those that the user interacted with since the release."""
    sources = user.surface.line.sources
    knn = sources.get("item_knn", sources.get("item_cooccurrence"))
    names = sorted(user.overlay.interacted.get(user.name, set()))
    items = user.release.entities.items.positions(names)
    items = np.unique(items[items >= 0])
    if not isinstance(knn, ItemKnn) or not len(items):
        return None
    indptr = np.array([0, len(items)])
    rows = SparseRows(indptr, items, np.ones(len(items), np.float32), knn.matrix.columns)
    products = top_products(rows, knn.matrix, _MAX_CANDIDATES, (indptr, items))
    if not len(products):
        return None
    score = products.columns["score"].astype(np.float64)

    def reason(item: int) -> Reason:
        one = Candidates(np.array([0, 1]), np.array([item], np.int32))
        name = user.release.display("items", int(best_middle(rows, knn.matrix, one)[0]))
        return Reason("because_you_liked", f"because you liked {name}", {"item": name})

    score = _CONNECTION + score / (score.max() + 1)
    return SeedEvidence("live_items", products.candidate, score, reason)


def shared_values(user: _User, context: Mapping[str, str], source: str) -> SeedEvidence | None:
    """Candidates with a value that the user stated, those with the rarest value first.

    A person's value counts by the homophily of its column, too, as in the source ``profile``.
    Among candidates with one value, popular ones come first.
    """
    scope = user.surface.line.scope
    position = user.position if scope.relation.self_typed else UNKNOWN
    shared: list[_Value] = []
    for name, values in _stated(user, context, scope.candidate_attributes).items():
        for text in values:
            members, written = _members(user.surface, name, text)
            members = members[scope.recommendable[members]]
            # a value that the release has of the user counts in its ranker already
            if len(members) and position not in members:
                rarity = np.log1p(len(scope.recommendable) / len(members))
                weight = float(_lift(user.surface, name) * rarity)
                shared.append(_Value(weight, name, written, members))
    if not shared:
        return None
    shared.sort(key=lambda value: (-value.weight, value.column, value.value))
    total = np.zeros(len(scope.recommendable))
    # the best value alone counts: people of one company share their city and trade anyway
    for value in reversed(shared):
        popularity = _popularity(user.surface, value.members)
        total[value.members] = value.weight + _TIE_WEIGHT * popularity
    candidate = _best(total, _MAX_CANDIDATES)
    score = _STATED + total[candidate] / (total[candidate].max() + 1)
    return SeedEvidence(source, candidate, score, partial(_shared_reason, shared, user.surface))


def _lift(surface: LoadedSurface, name: str) -> float:
    """The factor by which a shared value of a column raises the odds of an edge, above 0."""
    scope = surface.line.scope
    if not scope.relation.self_typed or not scope.graph.edges:
        return 1.0
    return _measured_lift(scope, name)


@cached_per_release
def _measured_lift(scope: Scope, name: str) -> float:
    sets = value_members(scope.candidate_attributes, [name])
    return max(homophily(scope, sets, _SAMPLED_EDGES), _MIN_LIFT)


def _shared_reason(shared: Sequence[_Value], surface: LoadedSurface, position: int) -> Reason:
    """The reason of a candidate: the first value that it shares."""
    value = next(value for value in shared if position in value.members)
    scope, words = surface.line.scope, value.column.replace("_", " ")
    evidence: dict[str, object] = {"column": value.column, "value": value.value}
    if not scope.relation.self_typed:
        code, text = f"popular_in_{value.column}", f"popular in {words}: {value.value}"
    elif scope.candidate_attributes.kinds[value.column] is ColumnKind.TAGS:
        code, text = f"shared_{value.column}", f"shared {words}: {value.value}"
    else:
        code, text = f"same_{value.column}", f"same {words}: {value.value}"
    return Reason(code, text, evidence)


def _stated(
    user: _User, context: Mapping[str, str], attributes: Attributes
) -> dict[str, tuple[str, ...]]:
    """The user's stated values by column; those of the request replace those of events."""
    stated = dict(user.overlay.profiles.get(user.name, {}))
    for name, text in context.items():
        tags = attributes.kinds.get(name) is ColumnKind.TAGS
        stated[name] = tuple(re.split("[;,|]", text)) if tags else (text,)
    columns = attributes.of_kind(ColumnKind.CATEGORY, ColumnKind.TAGS)
    return {name: values for name, values in stated.items() if name in columns}


def _members(surface: LoadedSurface, name: str, value: str) -> tuple[IndexArray, str]:
    """The positions that have a value, ascending, and the value as the tables write it."""
    scope = surface.line.scope
    column = scope.candidate_attributes.columns[name]
    assert isinstance(column, Category | Tags)
    folded = _folded_values(scope, name)
    wanted = _folded(pa.scalar(value))
    codes = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(folded, wanted), False)))
    if not len(codes):
        return np.zeros(0, np.int32), value
    sets = column.as_sets()
    entries = np.flatnonzero(np.isin(sets.indices, codes))
    rows = np.unique(np.searchsorted(sets.indptr, entries, side="right") - 1)
    return rows.astype(np.int32), str(column.values[int(codes[0])].as_py())


@cached_per_release
def _folded_values(scope: Scope, name: str) -> pa.Array:
    column = scope.candidate_attributes.columns[name]
    assert isinstance(column, Category | Tags)
    return _folded(column.values)


def _folded(values: pa.Array | pa.Scalar) -> pa.Array | pa.Scalar:
    """The values in NFKC and lower case, without blanks around them."""
    return pc.utf8_lower(
        pc.utf8_trim_whitespace(pc.utf8_normalize(values.cast(pa.string()), "NFKC"))
    )


def _popularity(surface: LoadedSurface, candidate: IndexArray) -> np.ndarray:
    """float64[n], below 1: the degrees of the candidates on a log scale."""
    degree = surface.line.scope.candidate_degree
    popularity: np.ndarray = np.log1p(degree[candidate]) / (np.log1p(degree.max(initial=0)) + 1)
    return popularity


def _best(total: np.ndarray, n: int) -> IndexArray:
    """int32: positions of the n largest values above 0, ties by the smaller position."""
    positions = np.flatnonzero(total > 0)
    if len(positions) > n:  # sort only the values that can be among the n largest
        least = np.partition(total[positions], len(positions) - n)[len(positions) - n]
        positions = positions[total[positions] >= least]
    order = np.lexsort((positions, -total[positions]))[:n]
    return positions[order].astype(np.int32)


def _display(user: _User, name: str) -> str:
    position = user.release.entities.users.position(name)
    return name if position == UNKNOWN else user.release.display("users", position)


def seeded_batch(
    release: LoadedRelease,
    overlay: Overlay,
    contacts: Contacts | None,
    surface: LoadedSurface,
    user_ids: Sequence[Identifier],
    requests: Requests,
) -> SeededBatch:
    """``seeded`` for each query of a batch that has no edge in the release."""
    degree = surface.line.scope.graph.degree
    return SeededBatch(
        tuple(
            seeded(release, overlay, contacts, surface, user, requests.context, requests.k)
            if position == UNKNOWN or degree[position] == 0
            else None
            for user, position in zip(overlay.query_ids(user_ids), requests.query, strict=True)
        )
    )
