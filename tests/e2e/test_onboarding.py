"""Users whom the release does not know: contacts, stated attributes, first edges."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.cli.main import app as cli
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.errors import ConfigError, DataError, EventError
from nextedge.serving.messages import RecommendationRequest, RecommendationResponse
from nextedge.types import CONNECTS

SETTINGS = """
[onboarding]
identifier_columns = ["email", "phone"]
[surfaces.people.ranker]
max_rows = 10000
compare = ["best_source"]
"""


@dataclass(frozen=True)
class Held:
    """A tenant from which some users were taken out whole: their rows, and who they knew."""

    folder: Path
    rows: dict[str, dict[str, object]]
    friends: dict[str, set[str]]


def email(user: str) -> str:
    return f"{user}@mail.example"


def phone(user: str) -> str:
    return f"+49 170 {int(user[1:]):07d}"


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    folder = tmp_path_factory.mktemp("held")
    generate_tenant(folder, SyntheticConfig(users=900, items=50, seed=11))
    users = pq.read_table(folder / "users.parquet")
    edges = pq.read_table(folder / "connections.parquet")
    ids = users.column("user_id").to_pylist()
    ends = [edges.column(side) for side in ("src", "dst")]
    connected = sorted(set(ends[0].to_pylist()) | set(ends[1].to_pylist()))
    away = set(np.random.default_rng(0).permutation(connected)[:120].tolist())
    asked = pa.array(sorted(away))
    friends: dict[str, set[str]] = {user: set() for user in away}
    for a, b in zip(*(side.to_pylist() for side in ends), strict=True):
        for one, other in ((a, b), (b, a)):
            if one in away and other not in away:
                friends[one].add(other)
    rows = {row["user_id"]: row for row in users.to_pylist() if row["user_id"] in away}
    users = users.append_column("email", pa.array(map(email, ids)))
    users = users.append_column("phone", pa.array(map(phone, ids)))
    kept = pc.invert(pc.or_(*(pc.is_in(side, value_set=asked) for side in ends)))
    pq.write_table(edges.filter(kept), folder / "connections.parquet")
    gone = pc.is_in(users.column("user_id"), value_set=asked)
    pq.write_table(users.filter(pc.invert(gone)), folder / "users.parquet")
    for table in ("interactions", "impressions", "items", "blocks"):
        (folder / f"{table}.parquet").unlink(missing_ok=True)
    (folder / "nextedge.toml").write_text(SETTINGS)
    Recommender(folder).build(["people"])
    return Held(folder, rows, {user: known for user, known in friends.items() if known})


@pytest.fixture
def recommender(held: Held, tmp_path: Path) -> Iterator[Recommender]:
    """The tenant with live state of its own."""
    shutil.copytree(held.folder, tmp_path / "tenant")
    recommender = Recommender(tmp_path / "tenant")
    yield recommender
    recommender.close()


def shown(answer: RecommendationResponse) -> list[str]:
    return [str(each.id) for each in answer.recommendations]


def of_contacts(answer: RecommendationResponse) -> set[str]:
    return {str(e.id) for e in answer.recommendations if e.reason.code == "contacts"}


def popular(recommender: Recommender, k: int = 20) -> list[str]:
    return shown(recommender.recommend("somebody new", "people", k))


def members(recommender: Recommender, count: int) -> list[str]:
    """The least connected who may be shown: nobody whom popularity would show."""
    scope = recommender.release.surface("people").line.scope
    order = np.argsort(scope.candidate_degree, kind="stable")
    order = order[scope.recommendable[order] & (scope.candidate_degree[order] > 0)][:count]
    return [str(each) for each in recommender.release.entities.users.identifiers(order).to_pylist()]


def test_contacts_are_suggested_to_both(held: Held, recommender: Recommender) -> None:
    friends = members(recommender, 5)
    assert not set(friends) & set(popular(recommender))
    book = [email(friends[0]).upper(), phone(friends[1]), *map(email, friends[2:4])]
    recommender.contacts.put("new", contacts=[*book, "stranger@else.example"], consent=True)
    recommender.contacts.put("later", own=["later@mail.example"], consent=True)
    recommender.contacts.put(friends[4], contacts=["later@mail.example"], consent=True)
    answer = recommender.recommend("new", "people", 20)
    assert len(answer.recommendations) == 20
    assert set(shown(answer)[:4]) == of_contacts(answer) == set(friends[:4])
    assert all(each.sources == ("contacts",) for each in answer.recommendations[:4])
    assert shown(answer)[4:] == popular(recommender)[:16]
    scores = [each.score for each in answer.recommendations]
    assert scores == sorted(scores, reverse=True)
    assert of_contacts(recommender.recommend("later", "people", 20)) == {friends[4]}


def test_a_match_is_shown_only_where_both_ends_allow_it(recommender: Recommender) -> None:
    friends = members(recommender, 8)
    recommender.contacts.put("new", contacts=list(map(email, friends)), consent=True)
    hiding, leaving, blocking, blocked, dismissed, connected = friends[:6]
    recommender.contacts.put(hiding, discoverable=False)
    recommender.record(
        [
            {"type": "opt_out", "user_id": leaving},
            {"type": "block", "user_id": blocking, "candidate_id": "new"},
            {"type": "block", "user_id": "new", "candidate_id": blocked},
            {"type": "dismiss", "user_id": "new", "candidate_id": dismissed},
            {"type": "connect", "user_id": "new", "candidate_id": connected},
        ]
    )
    answer = recommender.recommend("new", "people", 20)
    assert of_contacts(answer) == set(friends[6:])
    assert not set(shown(answer)) & {leaving, blocking, blocked, dismissed, connected}
    recommender.record([{"type": "opt_out", "user_id": friends[6]}])
    assert friends[6] not in shown(recommender.recommend("new", "people", 20))


def test_members_who_cannot_be_found_are_not_found_by_contacts(
    held: Held, recommender: Recommender
) -> None:
    users = pq.read_table(recommender.config.base / "users.parquet")
    hidden = users.filter(pc.invert(users.column("discoverable"))).column("user_id").to_pylist()
    assert hidden
    book = [*map(email, hidden), *map(email, members(recommender, 3))]
    recommender.contacts.put("new", contacts=book, consent=True)
    for user in hidden:  # not even by those whom they have themselves
        recommender.contacts.put(user, contacts=["new@mail.example"], consent=True)
    recommender.contacts.put("new", own=["new@mail.example"], consent=True)
    answer = recommender.recommend("new", "people", 100)
    assert not set(hidden) & set(shown(answer))
    assert of_contacts(answer) == set(members(recommender, 3))


def test_an_address_book_does_not_tell_who_is_a_member(recommender: Recommender) -> None:
    target = members(recommender, 1)[0]
    padding = [f"nobody{number}@nowhere.example" for number in range(40)]
    with TestClient(create_app(recommender)) as client:

        def attack(account: str, *probed: str) -> tuple[object, list[tuple[str, object]]]:
            body = {"contacts": [*probed, *padding], "consent": True}
            upload = client.put(f"/v1/users/{account}/contacts", json=body)
            found = client.get("/pymk/recommendations", params={"user_id": account, "limit": 50})
            rows = found.json()["recommendations"]
            return upload.json(), [(each["candidate_id"], each["reason"]) for each in rows]

        assert attack("one", email(target)) == attack("two", "not.a.member@mail.example")
        assert attack("one", phone(target)) == attack("two", "+49 170 9999999")
        # one account sees every match of a book at once, without which entry it was
        friends = members(recommender, 4)
        upload, rows = attack("three", *map(email, friends))
        assert upload == {"stored": 44, "refused": [], "left_today": 10_000 - 44}
        contacts = [reason for candidate, reason in rows if candidate in friends]
        assert (
            contacts
            == [{"code": "contacts", "text": "you may know each other", "evidence": {}}] * 4
        )
        # halving a book to find the entry behind a match ends with the day's uploads
        for _ in range(4):
            assert (
                client.put(
                    "/v1/users/three/contacts", json={"contacts": padding, "consent": True}
                ).status_code
                == 200
            )
        late = client.put("/v1/users/three/contacts", json={"contacts": padding, "consent": True})
        assert late.status_code == 429
        assert 0 < int(late.headers["Retry-After"]) <= 86_400
        assert client.delete("/v1/users/three/contacts").status_code == 204
        assert (
            client.put(
                "/v1/users/three/contacts", json={"contacts": padding, "consent": True}
            ).status_code
            == 429
        )


def test_nothing_in_the_state_folder_is_in_clear(held: Held, recommender: Recommender) -> None:
    recommender.contacts.put(
        "new",
        own=["Secret.Name@private.example"],
        contacts=["friend@hidden.example", "+4915112345678"],
        consent=True,
    )
    with pytest.raises(EventError, match="identifier_columns"):
        recommender.record([{"type": "profile_update", "user_id": "new", "email": "a@b.example"}])
    recommender.recommend("new", "people", 20)
    clear = [
        b"@mail.example",
        b"170 0",
        b"private.example",
        b"secret.name",
        b"hidden.example",
        b"15112345678",
        b"b.example",
    ]
    files = [path for path in recommender.config.state_path.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        content = path.read_bytes().lower()
        if path.suffix == ".parquet":  # compressed: look inside
            table = pq.read_table(path)
            assert not {"email", "phone"} & set(table.column_names), path
            content += str(table.to_pylist()).lower().encode()
        for given in clear:
            assert given not in content, f"{given!r} in {path}"


def test_identifiers_are_no_features(held: Held, recommender: Recommender) -> None:
    release = recommender.release
    assert "school" in release.entities.user_attributes.kinds
    assert not {"email", "phone"} & set(release.entities.user_attributes.kinds)
    line = release.surface("people").line
    assert not [n for n in line.features.names if "email" in n or "phone" in n]
    report = recommender.check().to_json()
    assert "@mail.example" not in str(report)
    user = members(recommender, 1)[0]
    assert "@" not in release.display("users", release.entities.users.position(user))


def test_a_column_that_is_not_there_is_named(held: Held) -> None:
    config = Recommender(held.folder).config
    onboarding = config.onboarding.model_copy(update={"identifier_columns": ("e_mail",)})
    with pytest.raises(DataError, match=r"'e_mail'.*did you mean 'email'"):
        Recommender(config.model_copy(update={"onboarding": onboarding})).build()
    folder = held.folder.parent / "settings"
    folder.mkdir()
    shutil.copy(held.folder / "connections.parquet", folder)
    (folder / "nextedge.toml").write_text('[onboarding]\nidentifier_columns = ["user_id"]\n')
    with pytest.raises(ConfigError, match="'user_id' is kept as given"):
        Recommender(folder)


def test_a_stated_school_seeds_the_list(held: Held, recommender: Recommender) -> None:
    usual = popular(recommender)
    release = recommender.release
    schools = pq.read_table(
        recommender.config.base / "users.parquet", columns=["user_id", "school"]
    )
    of_school: dict[object, set[str]] = {}
    for row in schools.to_pylist():
        of_school.setdefault(row["school"], set()).add(row["user_id"])
    stated = {user: row["school"] for user, row in held.rows.items() if row["school"]}
    recommender.record(
        [
            {"type": "profile_update", "user_id": user, "school": f" {str(school).upper()} "}
            for user, school in stated.items()
        ]
    )
    users = sorted(stated)
    answers = recommender.recommend_many(users, RecommendationRequest("people", 20))
    other = sum(set(shown(answer)) != set(usual) for answer in answers)
    assert other > 0.95 * len(answers)
    degree = release.surface("people").line.scope.candidate_degree
    for user, answer in zip(users, answers, strict=True):
        seeds = [e for e in answer.recommendations if e.sources == ("stated_profile",)]
        assert {str(e.id) for e in seeds} <= of_school[stated[user]]
        assert {e.reason.text for e in seeds} <= {f"same school: {stated[user]}"}
        places = release.entities.users.positions([e.id for e in seeds])
        assert np.all(np.diff(degree[places]) <= 0), "the popular of a school come first"
        assert [e.rank for e in seeds] == list(range(1, len(seeds) + 1))
    one = users[0]
    asked = recommender.recommend("nobody", "people", 20, context={"school": str(stated[one])})
    assert shown(asked) == shown(answers[0])
    recommender.record({"type": "profile_update", "user_id": one, "school": None})
    assert shown(recommender.recommend(one, "people", 20)) == usual


def test_the_rarer_of_stated_values_comes_first(held: Held, recommender: Recommender) -> None:
    column = recommender.release.entities.user_attributes.columns["school"]
    counts = np.bincount(column.codes[column.codes >= 0])  # type: ignore[union-attr]
    many, few = int(np.argmax(counts)), int(np.argmin(np.where(counts > 2, counts, 10**6)))
    wanted = [column.values[code].as_py() for code in (many, few)]  # type: ignore[union-attr]
    recommender.record({"type": "profile_update", "user_id": "new", "school": wanted})
    answer = recommender.recommend("new", "people", 200)
    codes = [each.reason.evidence.get("value") for each in answer.recommendations]
    assert codes[0] == wanted[1]
    assert codes == sorted(codes, key=[*reversed(wanted), None].index)
    assert set(codes) >= set(wanted)


def test_the_first_connection_brings_its_own(held: Held, recommender: Recommender) -> None:
    release, users = recommender.release, recommender.release.entities.users
    scope = release.surface("people").line.scope
    assert scope.relation is CONNECTS or scope.relation.self_typed
    order = np.argsort(np.abs(scope.candidate_degree - 12), kind="stable")
    first, second = (
        str(each) for each in users.identifiers(order[scope.recommendable[order]][:2]).to_pylist()
    )
    circles = {
        friend: set(users.identifiers(scope.graph.row(users.position(friend))).to_pylist())
        for friend in (first, second)
    }
    recommender.record({"type": "connect", "user_id": "new", "candidate_id": first})
    answer = recommender.recommend("new", "people", 20)
    assert set(shown(answer)) != set(popular(recommender))
    seeds = {str(e.id): e.reason for e in answer.recommendations if "live_connections" in e.sources}
    assert len(seeds) >= 8
    assert set(seeds) <= circles[first]
    for reason in seeds.values():
        assert reason.code == "mutual_connections"
        assert reason.evidence["count"] == 1
        assert reason.evidence["names"] == [release.display("users", users.position(first))]
    assert first not in shown(answer)

    extra = sorted(circles[first] - circles[second] - {second})[0]
    ended = sorted(circles[second] - {first, extra})[0]
    recommender.record(
        [
            {"type": "connect", "user_id": second, "candidate_id": "new"},
            {"type": "connect", "user_id": second, "candidate_id": extra},
            {"type": "disconnect", "user_id": second, "candidate_id": ended},
        ]
    )
    circles[second] = (circles[second] | {extra}) - {ended}
    answer = recommender.recommend("new", "people", 200)
    seeds = {str(e.id): e.reason for e in answer.recommendations if "live_connections" in e.sources}
    known = {str(u) for u in users.identifiers(np.flatnonzero(scope.recommendable)).to_pylist()}
    assert set(seeds) == (circles[first] | circles[second]) & known - {first, second}
    for user, reason in seeds.items():
        assert reason.evidence["count"] == sum(user in circle for circle in circles.values())
    assert seeds[extra].evidence["count"] == 2
    assert extra in list(seeds)[: sum(r.evidence["count"] == 2 for r in seeds.values())]

    recommender.record({"type": "opt_out", "user_id": second})
    answer = recommender.recommend("new", "people", 200)
    counts = {
        e.reason.evidence["count"]
        for e in answer.recommendations
        if e.reason.code == "mutual_connections"
    }
    assert counts == {1}
    assert second not in shown(answer)


def test_held_out_users_are_served_better_than_by_popularity(
    held: Held, recommender: Recommender
) -> None:
    usual = popular(recommender)

    def recall(lists: dict[str, list[str]]) -> float:
        return float(
            np.mean(
                [
                    len(set(lists[user][:20]) & known) / min(20, len(known))
                    for user, known in held.friends.items()
                ]
            )
        )

    users = sorted(held.friends)
    by_popularity = recall(dict.fromkeys(users, usual))
    for columns in (["school"], ["company", "school"], ["skills"]):
        lists = {}
        for user in users:
            row = held.rows[user]
            stated = {
                c: "|".join(row[c]) if isinstance(row[c], list) else str(row[c])
                for c in columns
                if row[c]
            }
            lists[user] = shown(recommender.recommend(user, "people", 20, context=stated))
        seeded = recall(lists)
        assert seeded > 1.5 * by_popularity, f"{columns}: {seeded:.3f}, {by_popularity:.3f}"
    # one friend found by contacts or search, then connected with: the others come
    lists, rest = {}, {}
    for user in users:
        known = held.friends[user]
        recommender.record({"type": "connect", "user_id": user, "candidate_id": min(known)})
        lists[user], rest[user] = (
            shown(recommender.recommend(user, "people", 20)),
            known - {min(known)},
        )
    pairs = [(lists[user], rest[user]) for user in users if rest[user]]
    hits = [
        [
            len(set(got) & left) / min(20, len(left))
            for got, left in zip(side, [r for _, r in pairs], strict=True)
        ]
        for side in ([got for got, _ in pairs], [usual] * len(pairs))
    ]
    assert np.mean(hits[0]) > 1.5 * np.mean(hits[1]), [float(np.mean(each)) for each in hits]


def test_members_without_an_edge_keep_their_ranking_behind_the_seeds(
    recommender: Recommender,
) -> None:
    release = recommender.release
    degree = release.surface("people").line.scope.graph.degree
    alone = str(release.entities.users.identifiers([int(np.argmin(degree))])[0])
    assert degree.min() == 0
    before = recommender.recommend(alone, "people", 20)
    assert not any("stated" in source for e in before.recommendations for source in e.sources)
    row = release.entities.users.position(alone)
    column = release.entities.user_attributes.columns["company"]
    company = column.values[int(column.codes[row])].as_py()  # type: ignore[union-attr]
    recommender.record({"type": "profile_update", "user_id": alone, "company": company})
    after = recommender.recommend(alone, "people", 20)
    assert shown(after) == shown(before), "the ranker knew it already"
    friends = members(recommender, 3)
    recommender.contacts.put(alone, contacts=list(map(email, friends)), consent=True)
    after = recommender.recommend(alone, "people", 20)
    assert set(shown(after)[:3]) == of_contacts(after) == set(friends)
    assert shown(after)[3:] == [each for each in shown(before) if each not in friends][:17]
    assert alone not in shown(after)


def test_a_batch_equals_single_requests(held: Held, recommender: Recommender) -> None:
    friends, users = members(recommender, 3), sorted(held.friends)[:2]
    recommender.contacts.put(users[0], contacts=list(map(email, friends)), consent=True)
    recommender.record({"type": "connect", "user_id": users[1], "candidate_id": friends[0]})
    warm = popular(recommender)[0]
    asked = [users[0], warm, "nobody", users[1]]
    batch = recommender.recommend_many(asked, RecommendationRequest("people", 20))
    for user, answer in zip(asked, batch, strict=True):
        alone = recommender.recommend(user, "people", 20)
        assert [(e.id, e.reason, e.sources) for e in answer.recommendations] == [
            (e.id, e.reason, e.sources) for e in alone.recommendations
        ]
    assert [answer.cold_start for answer in batch] == [True, False, True, True]


def test_a_list_of_live_state_is_never_kept(recommender: Recommender) -> None:
    friends = members(recommender, 4)
    with TestClient(create_app(recommender)) as client:

        def ask():  # type: ignore[no-untyped-def]
            return client.get("/pymk/recommendations", params={"user_id": "new", "limit": 20})

        def found() -> list[str]:
            rows = ask().json()["recommendations"]
            return [e["candidate_id"] for e in rows if e["reason"]["code"] == "contacts"]

        assert found() == found() == []
        body = {"own": ["new@mail.example"], "contacts": list(map(email, friends)), "consent": True}
        assert client.put("/v1/users/new/contacts", json=body).status_code == 200
        assert set(found()) == set(friends)
        assert ask().headers.get("x-cache") is None
        hide = {"discoverable_by_contacts": False}
        assert client.put(f"/v1/users/{friends[0]}/contacts", json=hide).status_code == 200
        assert set(found()) == set(friends[1:])
        assert client.delete("/v1/users/new/contacts").status_code == 204
        assert found() == []
        refused = client.put("/v1/users/new/contacts", json={"contacts": [email(friends[0])]})
        assert refused.status_code == 422
        assert "consent" in refused.json()["detail"]
        assert friends[0] not in refused.text


def test_an_address_book_from_a_file(recommender: Recommender, tmp_path: Path) -> None:
    friends = members(recommender, 3)
    lines = [f"{number},Name {number},{email(user)}" for number, user in enumerate(friends)]
    (tmp_path / "book.csv").write_text("id,name,mail\n" + "\n".join(lines) + "\n")
    where = ["-c", str(recommender.config.base)]
    run = CliRunner().invoke(
        cli, ["contacts", "new", str(tmp_path / "book.csv"), "--consent", *where]
    )
    assert run.exit_code == 0, run.output
    assert "3 contacts kept" in run.output
    assert of_contacts(recommender.recommend("new", "people", 20)) == set(friends)


def test_profile_updates_are_checked(recommender: Recommender) -> None:
    for fields, wanted in (
        ({}, "0 attributes"),
        ({"school": {"name": "MIT"}}, "school: expected text"),
        ({"skills": ["x" * 300]}, "skills: expected text"),
    ):
        with pytest.raises(EventError, match=wanted):
            recommender.record({"type": "profile_update", "user_id": "new", **fields})
    with pytest.raises(EventError, match="needs user_id"):
        recommender.record({"type": "profile_update", "school": "MIT"})


@pytest.fixture
def items(tenant: Path, tmp_path: Path) -> Iterator[Recommender]:
    shutil.copytree(tenant, tmp_path / "tenant")
    recommender = Recommender(tmp_path / "tenant")
    yield recommender
    recommender.close()


def test_the_first_items_bring_those_like_them(items: Recommender) -> None:
    usual = shown(items.recommend("new", "items", 20))
    release = items.release
    scope = release.surface("items").line.scope
    liked = str(
        release.entities.items.identifiers([int(np.argsort(-scope.candidate_degree)[30])])[0]
    )
    items.record({"type": "interact", "user_id": "new", "item_id": liked})
    answer = items.recommend("new", "items", 20)
    assert shown(answer) != usual
    assert liked not in shown(answer)
    place = release.entities.items.position(liked)
    first = answer.recommendations[0]
    assert first.sources == ("live_items",)
    assert first.reason.code == "because_you_liked"
    assert first.reason.evidence == {"item": release.display("items", place)}
    similar = release.surface("items").line.sources["item_knn"].matrix  # type: ignore[attr-defined]
    row = slice(similar.indptr[place], similar.indptr[place + 1])
    order = similar.indices[row][np.argsort(-similar.values[row], kind="stable")]
    best = [
        str(i)
        for i in release.entities.items.identifiers(order[scope.recommendable[order]]).to_pylist()
    ]
    assert first.id == best[0]


def test_stated_interests_bring_the_popular_of_them(items: Recommender) -> None:
    release = items.release
    scope = release.surface("items").line.scope
    column = scope.candidate_attributes.columns["category"]
    value = column.values[int(column.codes[0])].as_py()  # type: ignore[union-attr]
    items.record({"type": "profile_update", "user_id": "new", "category": value})
    answer = items.recommend("new", "items", 5)
    places = release.entities.items.positions([e.id for e in answer.recommendations])
    first = answer.recommendations[0]
    assert first.reason.text == f"popular in category: {value}"
    seeds = [
        p
        for p, e in zip(places, answer.recommendations, strict=True)
        if "stated_interests" in e.sources
    ]
    assert {int(column.codes[p]) for p in seeds} == {int(column.codes[0])}  # type: ignore[union-attr]
    assert np.all(np.diff(scope.candidate_degree[seeds]) <= 0)
