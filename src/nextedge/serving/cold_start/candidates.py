"""Lists for those whom the release does not know, or knows without an edge.

The release has nothing to rank by for them, so what is popular would be shown. What live state
tells comes first instead: contacts, the connections of the first connections, members who share
what was stated, items like the first ones. Policy and exclusions follow as for everyone.
"""

from __future__ import annotations

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

_MOST = 1000
"""Candidates that one kind of evidence gives."""
_SAMPLED_EDGES = 50_000
_TIE = 1e-3
_LEAST_LIFT = 0.01
_CONTACT, _CONNECTION, _STATED = 4.0, 2.0, 0.0
"""A contact is worth more than any number of mutual connections, one of those more than a school."""


def seeded(
    release: LoadedRelease,
    overlay: Overlay,
    contacts: Contacts | None,
    surface: LoadedSurface,
    user_id: Identifier,
    context: Mapping[str, str],
    k: int,
) -> Seeded:
    """What live state recommends to a user without an edge in the release; may be nothing.

    Args:
        context: of the request; keys that are category or tag columns count as stated.
        k: results wanted; several times as many are given, for what policy leaves out.
    """
    user = _User(release, overlay, surface, str(user_id))
    if surface.line.scope.relation.self_typed:
        given = [
            contact_matches(user, contacts),
            friends_of_friends(user),
            sharing(user, context, "stated_profile"),
        ]
    else:
        given = [like_the_first(user), sharing(user, context, "stated_interests")]
    evidence = tuple(each for each in given if each is not None)
    if not evidence:
        return NOTHING
    total = np.zeros(len(surface.line.scope.recommendable))
    for each in evidence:
        total[each.candidate] += each.score
    total[~np.asarray(surface.line.scope.recommendable)] = 0
    order = _best(total, max(_MOST, 2 * k))
    return Seeded(order, total[order].astype(np.float32), evidence)


@dataclass(frozen=True, eq=False)
class _User:
    """One user as live state and the release see them."""

    release: LoadedRelease
    overlay: Overlay
    surface: LoadedSurface
    name: str

    @property
    def position(self) -> int:
        return self.release.entities.users.position(self.name)

    def people(self, names: set[str]) -> IndexArray:
        """Positions of those whom the release knows, ascending."""
        places = self.release.entities.users.positions(sorted(names))
        return np.unique(places[places >= 0])

    def severed(self, name: str) -> IndexArray:
        """Positions of those whom nothing may link to a user: blocked, disconnected, hidden."""
        live = self.people(self.overlay.severed(name))
        place = self.release.entities.users.position(name)
        if place == UNKNOWN:
            return live
        return np.union1d(live, self.release.snapshot.blocks.row(place)).astype(np.int32)


@dataclass(frozen=True, eq=False)
class _Value:
    """A stated value, what sharing it is worth, and who has it, ascending."""

    weight: float
    column: str
    value: str
    members: IndexArray


def contact_matches(user: _User, contacts: Contacts | None) -> SeedEvidence | None:
    """Members in the user's address book, and members in whose book the user is.

    One-sided matches of the user's own book are given from ``onboarding.min_matches`` on: with fewer
    a book of one known address and much invention would tell whether its owner is a member.
    """
    if contacts is None:
        return None
    matches = contacts.matches(user.name)
    places = user.release.entities.users.positions([match.user_id for match in matches])
    hidden = np.union1d(user.people(set(user.overlay.absent)), user.severed(user.name))
    known = user.surface.line.scope.recommendable
    shown = (places >= 0) & ~np.isin(places, hidden)
    shown[shown] = known[places[shown]]
    in_book = np.array([match.in_book for match in matches], bool)
    has_user = np.array([match.has_user for match in matches], bool)
    if int((shown & in_book).sum()) < contacts.settings.min_matches:
        shown &= has_user
    if not shown.any():
        return None
    candidate = places[shown]
    score = _CONTACT + (in_book & has_user)[shown] + _popularity(user.surface, candidate)
    # which entry matched, and in whose book, is nobody's to know
    reason = Reason("contacts", "you may know each other")
    return SeedEvidence("contacts", candidate, score, lambda _: reason)


def friends_of_friends(user: _User) -> SeedEvidence | None:
    """Connections of the user's first connections, by Adamic-Adar; counts are exact.

    Connections who opted out, cannot be found, or whom either side blocked do not count.
    """
    overlay, snapshot = user.overlay, user.release.snapshot
    visible = user.release.entities.user_attributes.flag("discoverable", True)
    users = user.release.entities.users
    gone = overlay.absent | overlay.severed(user.name)
    circles: dict[str, IndexArray] = {}
    for friend in sorted(overlay.connected.get(user.name, set()) - gone):
        place = users.position(friend)
        if place != UNKNOWN and not visible[place]:
            continue
        known = snapshot.connections.row(place) if place != UNKNOWN else np.zeros(0, np.int32)
        circle = np.union1d(known, user.people(overlay.connected.get(friend, set())))
        circles[friend] = np.setdiff1d(circle, user.severed(friend))
    own = np.append(user.people(set(circles)), user.position)
    total = np.zeros(len(users))
    for circle in circles.values():
        total[circle] += 1 / np.log(max(len(circle), 2))
    total[own[own >= 0]] = 0
    candidate = _best(total, _MOST)
    if not len(candidate):
        return None
    score = _CONNECTION + total[candidate] / (total[candidate].max() + 1)

    def reason(found: int) -> Reason:
        mutual = [friend for friend, circle in circles.items() if found in circle]
        mutual.sort(key=lambda friend: (len(circles[friend]), friend))
        return mutual_reason(len(mutual), [_display(user, friend) for friend in mutual[:2]])

    return SeedEvidence("live_connections", candidate, score, reason)


def like_the_first(user: _User) -> SeedEvidence | None:
    """Items similar to those the user interacted with since the release."""
    sources = user.surface.line.sources
    knn = sources.get("item_knn", sources.get("item_cooccurrence"))
    names = sorted(user.overlay.interacted.get(user.name, set()))
    places = user.release.entities.items.positions(names)
    places = np.unique(places[places >= 0])
    if not isinstance(knn, ItemKnn) or not len(places):
        return None
    rows = SparseRows(
        np.array([0, len(places)]), places, np.ones(len(places), np.float32), knn.matrix.columns
    )
    found = top_products(rows, knn.matrix, _MOST, (np.array([0, len(places)]), places))
    if not len(found):
        return None
    score = found.columns["score"].astype(np.float64)

    def reason(item: int) -> Reason:
        one = Candidates(np.array([0, 1]), np.array([item], np.int32))
        name = user.release.display("items", int(best_middle(rows, knn.matrix, one)[0]))
        return Reason("because_you_liked", f"because you liked {name}", {"item": name})

    return SeedEvidence(
        "live_items", found.candidate, _CONNECTION + score / (score.max() + 1), reason
    )


def sharing(user: _User, context: Mapping[str, str], source: str) -> SeedEvidence | None:
    """Candidates with a value that the user stated: those of the rarest first, the popular before
    the others of the same.

    A person's value counts by the homophily of its column, too, as in the source ``profile``. A
    candidate counts by one value only: a company's people share their city and trade anyway.
    What the release knows of the user is left to its ranker.
    """
    scope = user.surface.line.scope
    own = user.position if scope.relation.self_typed else UNKNOWN
    shared: list[_Value] = []
    for name, values in _stated(user, context, scope.candidate_attributes).items():
        for value in values:
            members, written = _members(user.surface, name, value)
            members = members[scope.recommendable[members]]
            if len(members) and own not in members:
                weight = _lift(user.surface, name) * np.log1p(
                    len(scope.recommendable) / len(members)
                )
                shared.append(_Value(float(weight), name, written, members))
    if not shared:
        return None
    shared.sort(key=lambda each: (-each.weight, each.column, each.value))
    total = np.zeros(len(scope.recommendable))
    for each in reversed(shared):
        popularity = _popularity(user.surface, each.members)
        total[each.members] = each.weight + _TIE * popularity
    candidate = _best(total, _MOST)
    score = _STATED + total[candidate] / (total[candidate].max() + 1)
    describe = partial(_shared_reason, shared, user.surface)
    return SeedEvidence(source, candidate, score, describe)


def _lift(surface: LoadedSurface, name: str) -> float:
    """How much sharing a value of a column raises the odds of an edge; small but above 0."""
    scope = surface.line.scope
    if not scope.relation.self_typed or not scope.graph.edges:
        return 1.0
    return _measured_lift(scope, name)


@cached_per_release
def _measured_lift(scope: Scope, name: str) -> float:
    sets = value_members(scope.candidate_attributes, [name])
    return max(homophily(scope, sets, _SAMPLED_EDGES), _LEAST_LIFT)


def _shared_reason(shared: Sequence[_Value], surface: LoadedSurface, found: int) -> Reason:
    """The value that a candidate counts by."""
    given = next(each for each in shared if found in each.members)
    words = given.column.replace("_", " ")
    evidence: dict[str, object] = {"column": given.column, "value": given.value}
    if not surface.line.scope.relation.self_typed:
        code, text = f"popular_in_{given.column}", f"popular in {words}: {given.value}"
    elif surface.line.scope.candidate_attributes.kinds[given.column] is ColumnKind.TAGS:
        code, text = f"shared_{given.column}", f"shared {words}: {given.value}"
    else:
        code, text = f"same_{given.column}", f"same {words}: {given.value}"
    return Reason(code, text, evidence)


def _stated(
    user: _User, context: Mapping[str, str], attributes: Attributes
) -> dict[str, tuple[str, ...]]:
    """Stated values by column; those of the request go before those of events."""
    stated = dict(user.overlay.profiles.get(user.name, {}))
    for name, text in context.items():
        tags = attributes.kinds.get(name) is ColumnKind.TAGS
        stated[name] = (
            tuple(text.replace(";", "|").replace(",", "|").split("|")) if tags else (text,)
        )
    columns = attributes.of_kind(ColumnKind.CATEGORY, ColumnKind.TAGS)
    return {name: values for name, values in stated.items() if name in columns}


def _members(surface: LoadedSurface, name: str, value: str) -> tuple[IndexArray, str]:
    """Positions of those who have a value, ascending, and the value as the tables write it."""
    scope = surface.line.scope
    column = scope.candidate_attributes.columns[name]
    assert isinstance(column, Category | Tags)
    folded = _folded_values(scope, name)
    wanted = _folded(pa.scalar(value))
    codes = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(folded, wanted), False)))
    if not len(codes):
        return np.zeros(0, np.int32), value
    sets = column.as_sets()
    at = np.flatnonzero(np.isin(sets.indices, codes))
    rows = np.unique(np.searchsorted(sets.indptr, at, side="right") - 1)
    return rows.astype(np.int32), str(column.values[int(codes[0])].as_py())


@cached_per_release
def _folded_values(scope: Scope, name: str) -> pa.Array:
    column = scope.candidate_attributes.columns[name]
    assert isinstance(column, Category | Tags)
    return _folded(column.values)


def _folded(values: pa.Array | pa.Scalar) -> pa.Array | pa.Scalar:
    """Values without the difference of blanks around them and of case."""
    return pc.utf8_lower(
        pc.utf8_trim_whitespace(pc.utf8_normalize(values.cast(pa.string()), "NFKC"))
    )


def _popularity(surface: LoadedSurface, candidate: IndexArray) -> np.ndarray:
    """float64[n] below 1: edges of the candidates on a log scale."""
    degree = surface.line.scope.candidate_degree
    popularity: np.ndarray = np.log1p(degree[candidate]) / (np.log1p(degree.max(initial=0)) + 1)
    return popularity


def _best(total: np.ndarray, n: int) -> IndexArray:
    """int32: places of the n largest values above 0, ties by the smaller place."""
    found = np.flatnonzero(total > 0)
    if len(found) > n:
        least = np.partition(total[found], len(found) - n)[len(found) - n]
        found = found[total[found] >= least]
    order = np.lexsort((found, -total[found]))[:n]
    return found[order].astype(np.int32)


def _display(user: _User, name: str) -> str:
    place = user.release.entities.users.position(name)
    return name if place == UNKNOWN else user.release.display("users", place)


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
            if place == UNKNOWN or degree[place] == 0
            else None
            for user, place in zip(overlay.query_ids(user_ids), requests.query, strict=True)
        )
    )
