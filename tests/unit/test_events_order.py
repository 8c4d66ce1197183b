"""The state is that of the events' times: order, repetition, clocks and checkpoints change nothing."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextedge.data.erased_users import ErasedUsers
from nextedge.events.event import Event, parse_event
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.events.schemas import EVENTS
from nextedge.events.state.checkpoint import Checkpoints, canonical
from nextedge.events.state.checkpoint_writer import CheckpointWriter, write_checkpoint
from nextedge.events.state.folded_state import FoldedState
from nextedge.events.state.overlay import Overlay

USERS, ITEMS, DAY = ("a", "b", "c", 1), ("x", 2), 86_400_000_000
Told = tuple[str, int, int, int, int, Any]


def event_of(number: int, told: Told) -> Event:
    """An event of few people at few times, so that many meet."""
    name, user, other, item, hours, value = told
    declared = EVENTS[name]
    raw: dict[str, Any] = {
        "type": name,
        "event_id": f"e{number}",
        "timestamp": 1_700_000_000 + hours * 3600,
    }
    if "user_id" in declared.needs:
        raw["user_id"] = USERS[user]
    if "candidate_id" in declared.needs or (declared.either and value):
        raw["candidate_id"] = USERS[(user + 1 + other) % len(USERS)]
    if "item_id" in declared.needs or (declared.either and not value):
        raw["item_id"] = ITEMS[item]
    if declared.states:
        raw |= {"school": value, "skills": [value] if value else []}
    if name == "item_upsert" and value is not None:
        raw["available"] = bool(value)
    return parse_event(raw)


told = st.tuples(
    st.sampled_from(sorted(EVENTS)),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 1),
    st.integers(0, 5),
    st.sampled_from([None, "", "MIT", "ETH"]),
)
some_events = st.lists(told, max_size=40).map(
    lambda found: [event_of(number, each) for number, each in enumerate(found)]
)


def state(facts: FoldedState) -> dict[str, list[Any]]:
    return {part: sorted(rows) for part, rows in facts.dump().items()}


def views(facts: FoldedState) -> dict[str, Any]:
    """All that readers look at, beside what is dumped."""
    return (
        {
            name: getattr(facts, name)
            for name in (
                "connected",
                "disconnected",
                "dismissed",
                "interacted",
                "opted_out",
                "departed",
                "unavailable",
                "impressions",
            )
        }
        | {
            name: {str(user): set(getattr(facts, name).of(str(user))) for user in USERS}
            for name in ("blocked", "hidden_connections", "requested")
        }
        | {"profiles": {user: found for user, found in facts.profiles.items() if found}}
    )


@given(some_events, st.data())
def test_order_and_repetition_change_nothing(events: list[Event], data: st.DataObject) -> None:
    repeated = st.lists(st.sampled_from(events)) if events else st.just([])
    other = data.draw(st.permutations(events + data.draw(repeated)))
    days = data.draw(st.sampled_from([float("inf"), 0.1, 0.0]))
    one, two = FoldedState(days), FoldedState(days)
    for event in events:
        one.add(event)
    for event in other:
        two.add(event)
    assert state(one) == state(two)
    assert views(one) == views(two)


@given(some_events)
def test_a_fact_is_what_its_latest_event_says(events: list[Event]) -> None:
    """The slow and obvious way: for each fact the latest event, the narrowing one where equal."""
    facts = FoldedState.of(events)
    for on, off, holds in (
        ("opt_out", ("opt_in",), lambda e: str(e.user_id) in facts.opted_out),
        ("block", ("unblock",), lambda e: str(e.candidate_id) in facts.blocked.of(str(e.user_id))),
        (
            "disconnect",
            ("connect", "accept"),
            lambda e: str(e.candidate_id) not in facts.connected.get(str(e.user_id), ()),
        ),
    ):
        symmetric = on == "disconnect"
        about = [e for e in events if e.type in (on, *off)]
        for event in about:
            pair = [str(event.user_id), str(event.candidate_id)]
            same = [
                e
                for e in about
                if [str(e.user_id), str(e.candidate_id)]
                in (pair, pair[::-1] if symmetric else pair)
            ]
            last = max(same, key=lambda e: (e.micros, e.type == on))
            if last.type == on:
                assert holds(event)
            elif on != "block":  # the other one's block may stand
                assert not holds(event)


def test_a_request_hides_the_pair_while_it_stands() -> None:
    def facts(*names: tuple[str, str, str]) -> FoldedState:
        return FoldedState.of(
            parse_event({"type": name, "user_id": by, "candidate_id": other, "timestamp": place})
            for place, (name, by, other) in enumerate(names)
        )

    asked = ("request", "a", "b")
    assert facts(asked).requested.of("a") == {"b"}
    assert facts(asked).requested.of("b") == {"a"}
    for answer in (("withdraw", "a", "b"), ("decline", "b", "a"), ("accept", "b", "a")):
        assert not facts(asked, answer).requested.of("b")
        assert facts(answer, asked).requested.of("b") == {"a"}
    for none in (("withdraw", "b", "a"), ("decline", "a", "b")):
        assert facts(asked, none).requested.of("b") == {"a"}
    declined = facts(asked, ("decline", "b", "a"))
    assert declined.dismissed == {("people", "b"): {"a"}}
    ended = facts(asked, ("accept", "b", "a"), ("disconnect", "a", "b"))
    assert not ended.requested.of("a")
    assert not ended.connected


def test_no_more_is_kept_of_what_was_shown_than_needed() -> None:
    def shown(micros: int, target: str) -> Event:
        time = f"2026-01-{1 + micros // DAY:02d}T00:00:00.{micros % DAY:06d}Z"
        return parse_event(
            {"type": "impression", "user_id": 1, "item_id": target, "timestamp": time}
        )

    facts = FoldedState(2)
    for place in range(2100):
        facts.add(shown(place, str(place)))
    assert len(facts.impressions["items", "1"]) == 2000
    assert facts.impressions["items", "1"][0][1] == "100"
    facts.add(shown(4 * DAY, "late"))
    facts.add(shown(1, "too old"))
    assert [target for _, target in facts.impressions["items", "1"]] == ["late"]


folders = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def new_log(folder: Path, events: Sequence[Event] = ()) -> LocalLog:
    log = LocalLog(folder / str(next(folders)))
    log.append(events)
    return log


def overlay(log: LocalLog, checkpoints: Checkpoints | None = None) -> Overlay:
    found = Overlay(log, checkpoints)
    found.catch_up()
    return found


@given(events=some_events, place=st.integers(0, 40))
def test_a_checkpoint_and_the_rest_are_the_whole(
    folder: Path, events: list[Event], place: int
) -> None:
    log = new_log(folder, events[:place])
    checkpoints = Checkpoints(log.path.parent / "overlay")
    assert write_checkpoint(lambda: Overlay(log, checkpoints), checkpoints)
    log.append(events[place:])
    resumed, whole = overlay(log, checkpoints), overlay(log)
    assert resumed.folded == len(events[place:])
    assert canonical(resumed) == canonical(whole)
    assert views(resumed) == views(whole)
    assert resumed.position == log.last_position()
    log.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    log = LocalLog(tmp_path)
    log.append([event_of(n, ("block", n % 4, n % 3, 0, n, None)) for n in range(8)])
    yield log
    log.close()


def checkpoint_of(log: LocalLog) -> Checkpoints:
    checkpoints = Checkpoints(log.path.parent / "overlay")
    checkpoints.write(overlay(log))
    return checkpoints


def test_a_damaged_checkpoint_is_ignored(log: LocalLog) -> None:
    checkpoints = checkpoint_of(log)
    (path,) = checkpoints.paths()
    assert overlay(log, checkpoints).folded == 0
    whole, unpacked = path.read_bytes(), gzip.decompress(path.read_bytes())
    lines = unpacked.splitlines(keepends=True)
    newer = json.dumps({**json.loads(lines[0]), "format": 99}).encode()
    changed = unpacked.replace(b'["a","b",', b'["a","d",')
    assert changed != unpacked
    for damaged in (
        b"",
        b"no gzip",
        whole[:-9],
        whole[: len(whole) // 2],
        gzip.compress(changed),
        gzip.compress(b"".join(lines[:-1])),
        gzip.compress(unpacked + b"{}\n"),
        gzip.compress(b"[]\n"),
        gzip.compress(newer + b"\n" + b"".join(lines[1:])),
    ):
        path.write_bytes(damaged)
        found = overlay(log, checkpoints)
        assert found.folded == 8
        assert canonical(found) == canonical(overlay(log))


def test_a_checkpoint_of_another_log_is_ignored(log: LocalLog, tmp_path: Path) -> None:
    checkpoints = checkpoint_of(log)
    (path,) = checkpoints.paths()
    other = LocalLog(tmp_path / "other")
    other.append([event_of(100 + n, ("opt_out", n % 4, 0, 0, n, None)) for n in range(9)])
    assert overlay(other, checkpoints).folded == 9
    header, rest = gzip.decompress(path.read_bytes()).split(b"\n", 1)
    # the same identity, as when a file system gives a number again: the events tell
    generation = json.dumps(other.generation())
    assert generation != json.loads(header)["generation"]
    forged = json.dumps({**json.loads(header), "generation": generation}, separators=(",", ":"))
    content = forged.encode() + b"\n" + rest.rsplit(b"\n", 2)[0] + b"\n"
    from hashlib import sha256

    last = json.dumps({"sha256": sha256(content).hexdigest()}).encode()
    path.write_bytes(gzip.compress(content + last + b"\n"))
    assert overlay(other, checkpoints).folded == 9
    other.close()


def test_a_purge_makes_checkpoints_worthless(log: LocalLog) -> None:
    checkpoints = checkpoint_of(log)
    first = next(position for position, _ in log.read())
    log.purge([first])
    found = overlay(log, checkpoints)
    assert found.folded == 7
    checkpoints.write(found)
    assert len(checkpoints.paths()) == 1  # the one of before may hold who was forgotten


def test_who_is_erased_stays_hidden_in_processes_that_serve_an_older_release(log: LocalLog) -> None:
    """Until they load the release without the person: the opt-out and the blocks are gone then."""
    checkpoints = Checkpoints(log.path.parent / "overlay")
    log.append(
        [
            Event(type="opt_out", user_id="hidden"),
            Event(type="block", user_id="erased", candidate_id="other"),
            Event(type="connect", user_id="known", candidate_id="other"),
        ]
    )
    serving = overlay(log, checkpoints)
    ErasedUsers(log.path.parent).add("erased")
    log.purge([position for position, event in log.read() if event.user_id != "known"])
    serving.catch_up()
    assert serving.absent == {"hidden", "erased"}
    assert serving.query_ids(["erased"]) == [""]
    log.append([Event(type="opt_in", user_id="hidden")])
    serving.catch_up()
    assert serving.absent == {"erased"}
    assert not overlay(log, checkpoints).absent  # a process that starts has the new release


def test_two_are_kept_and_one_writes_at_a_time(log: LocalLog) -> None:
    checkpoints = checkpoint_of(log)
    for _ in range(3):
        checkpoints.write(overlay(log))
    newest, second = checkpoints.paths()
    newest.write_bytes(b"cut")
    assert overlay(log, checkpoints).folded == 0  # the one before is as good
    with checkpoints.lock():
        assert not write_checkpoint(lambda: Overlay(log, checkpoints), checkpoints)
    assert checkpoints.paths() == [newest, second]
    assert checkpoints.drop() == 2
    assert checkpoints.paths() == []


def test_a_serving_process_renews_it_after_many_events(log: LocalLog) -> None:
    checkpoints = Checkpoints(log.path.parent / "overlay")
    serving = overlay(log, checkpoints)
    writer = CheckpointWriter(serving, serving.emptied, every=10)
    try:
        assert not writer.write_if_due()
        log.append([event_of(50 + n, ("connect", n % 4, 0, 0, n, None)) for n in range(5)])
        serving.catch_up()
        assert writer.write_if_due()
        assert not writer.write_if_due()
        assert overlay(log, checkpoints).folded == 0
        log.purge([next(position for position, _ in log.read())])
        serving.catch_up()
        assert writer.write_if_due()  # who was taken out stands in no checkpoint any more
        assert len(checkpoints.paths()) == 1
        assert overlay(log, checkpoints).folded == 0
    finally:
        writer.stop()
