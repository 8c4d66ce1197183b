"""record, replay and events schema on real files and a real log."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from nextedge import Recommender
from nextedge.cli import record as commands
from nextedge.cli.main import app
from nextedge.errors import EventError, StorageError
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.events.state.checkpoint import Checkpoints, canonical

WHEN = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
EVENTS: list[dict[str, Any]] = [
    {"type": "connect", "user_id": "ann", "candidate_id": "bob"},
    {"type": "purchase", "user_id": "ann", "item_id": "hat", "price": 2.5, "timestamp": WHEN},
    {"type": "profile_update", "user_id": "cem", "school": 'École, "Paris"'},
    {"type": "opt_out", "user_id": "dee", "event_id": "own-1", "note": "kept"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tenant with a table and no release: events are recorded before the first build."""
    directory = tmp_path / "t"
    directory.mkdir()
    pq.write_table(pa.table({"src": ["ann"], "dst": ["cem"]}), directory / "connections.parquet")
    return directory


def run(folder: Path, *command: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [*command, "-c", str(folder)], input=given)


def recorded(folder: Path, *command: str, given: bytes | None = None) -> dict[str, Any]:
    done = run(folder, "record", *command, "--json", given=given)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def lines(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each, default=str).encode() + b"\n" for each in events)


def as_jsonl(path: Path) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_bytes(lines(EVENTS))
    return path


def as_gzip(path: Path) -> Path:
    path = path.with_suffix(".jsonl.gz")
    path.write_bytes(gzip.compress(lines(EVENTS)))
    return path


def as_csv(path: Path) -> Path:
    path = path.with_suffix(".csv")
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        rows = csv.DictWriter(file, sorted({name for each in EVENTS for name in each}))
        rows.writeheader()
        rows.writerows(EVENTS)
    return path


def as_parquet(path: Path) -> Path:
    path = path.with_suffix(".parquet")
    names = sorted({name for each in EVENTS for name in each})
    pq.write_table(pa.table({n: [each.get(n) for each in EVENTS] for n in names}), path)
    return path


@pytest.mark.parametrize("write", [as_jsonl, as_gzip, as_csv, as_parquet])
def test_the_same_events_from_every_kind_of_file(
    folder: Path, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path / "events")
    assert recorded(folder, "--from", str(path)) == {"stored": 4, "repeated": 0, "rejected": []}
    assert recorded(folder, str(path)) == {"stored": 0, "repeated": 4, "rejected": []}
    log = LocalLog(folder / "state")
    kept = [event for _, event in log.read()]
    log.close()
    given = [
        {name: each.get(name) for name in ("type", "user_id", "candidate_id", "item_id")}
        for each in EVENTS
    ]
    assert [{name: getattr(e, name) for name in given[0]} for e in kept] == given
    assert (kept[1].given("price"), kept[1].timestamp) == (2.5, WHEN)
    assert kept[2].model_extra == {"school": 'École, "Paris"'}
    assert (kept[3].event_id, kept[3].given("note")) == ("own-1", "kept")


def test_malformed_lines_are_named_and_the_rest_is_kept(folder: Path) -> None:
    bad = [
        b"{",
        b"[1]",
        b'{"type": "dismis"}',
        b"\xff\xfe",
        b'{"type": "leave"}',
        b"[" * 100_000,
        b'{"type": "leave", "user_id": 1, "timestamp": "2999-01-01"}',
    ]
    given = b"\n".join([*bad, b"", lines(EVENTS[:1])])
    found = recorded(folder, "-", given=given)
    assert found["stored"] == 1
    reasons = dict(enumerate(found["rejected"], 1))
    for number, why in enumerate(
        [
            "no JSON",
            "expected one JSON object",
            "did you mean 'dismiss'",
            "no JSON",
            "needs user_id",
            "no JSON",
            "ahead of the clock",
        ],
        1,
    ):
        assert reasons[number].startswith(f"-: line {number}: ")
        assert why in reasons[number]
    assert recorded(folder, "-", given=given)["repeated"] == 1
    none = run(folder, "record", "-", given=b"\n".join(bad))
    assert none.exit_code == 2
    assert "0 events stored, 0 repeated, 7 rejected" in none.stderr
    wide = b"type,user_id\nleave,1,2\nleave,2\n"
    (folder / "e.csv").write_bytes(wide)
    assert recorded(folder, str(folder / "e.csv"))["rejected"] == [
        f"{folder / 'e.csv'}: line 2: 3 fields; expected 2, as in the first line"
    ]


def test_what_stands_before_a_damaged_place_is_kept(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    many = [{"type": "leave", "user_id": place, "event_id": str(place)} for place in range(9000)]
    whole = gzip.compress(lines(many))
    path.write_bytes(whole[: len(whole) // 2])
    done = run(folder, "record", str(path))
    assert done.exit_code != 0
    assert "damaged after line" in str(done.exception)
    log = LocalLog(folder / "state")
    before = sum(1 for _ in log.read())
    log.close()
    assert f"{before:,} events stored; run it again" in done.stderr
    assert before > 2000
    path.write_bytes(whole)
    assert recorded(folder, str(path)) == {
        "stored": 9000 - before,
        "repeated": before,
        "rejected": [],
    }


def test_a_run_that_was_stopped_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.jsonl"
    path.write_bytes(lines([{"type": "leave", "user_id": place} for place in range(50)]))
    monkeypatch.setattr(commands, "_BATCH", 20)
    with monkeypatch.context() as patch:
        append, calls = LocalLog.append, []

        def full_at_the_second(self: LocalLog, events: Any) -> int:
            calls.append(events)
            if len(calls) == 2:
                raise StorageError("no space")
            return append(self, events)

        patch.setattr(LocalLog, "append", full_at_the_second)
        stopped = run(folder, "record", str(path))
    assert isinstance(stopped.exception, StorageError)
    assert "stopped after 20 lines, 20 events stored; run it again" in stopped.stderr
    assert recorded(folder, str(path)) == {"stored": 30, "repeated": 20, "rejected": []}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["record"], "give the events once"),
        (["record", "a.jsonl", "--from", "b.jsonl"], "give the events once"),
        (["record", "none.jsonl"], "no such file"),
        (["record", __file__], "ends in .jsonl"),
        (["replay", "--since", "tomorrow"], "neither a time"),
        (["replay", "--since", "77"], "nor a position"),
    ],
)
def test_bad_usage_is_said(folder: Path, command: list[str], reason: str) -> None:
    done = run(folder, *command)
    assert done.exit_code != 0
    assert reason in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 2


def test_the_schema_is_printed() -> None:
    printed = json.loads(CliRunner().invoke(app, ["events", "schema"]).stdout)
    assert "withdraw" in printed["properties"]["type"]["enum"]


def replayed(folder: Path, since: str, code: int = 0) -> dict[str, Any]:
    done = run(folder, "replay", "--since", since, "--json")
    assert done.exit_code == code, done.output
    return dict(json.loads(done.stdout))


def test_a_replay_counts_and_compares(folder: Path, tmp_path: Path) -> None:
    recorded(folder, str(as_jsonl(tmp_path / "events")))
    recommender = Recommender(folder)
    recommender.keep_snapshot()
    snapshots = Checkpoints(folder / "state" / "overlay")
    assert len(snapshots.paths()) == 1
    found = replayed(folder, "2026-01-01")
    assert found["events"] == {"connect": 1, "opt_out": 1, "profile_update": 1, "purchase": 1}
    assert (found["equal"], found["snapshots_dropped"], found["folded"]) == (True, 1, 4)
    assert len(snapshots.paths()) == 1
    assert replayed(folder, "2026-03-02T00:00:00+01:00")["events"].keys() == {
        "connect",
        "opt_out",
        "profile_update",
    }
    second = list(recommender.overlay.log.read())[1][0]
    after = replayed(folder, second)
    assert after["events"] == {"opt_out": 1, "profile_update": 1}
    assert after["snapshots_dropped"] == 1
    kept = replayed(folder, "2999-01-01")
    assert (kept["snapshots_dropped"], kept["folded"], kept["events"]) == (0, 0, {})
    recommender.close()


def test_a_replay_finds_a_state_that_was_wrong_and_mends_it(folder: Path, tmp_path: Path) -> None:
    recorded(folder, str(as_jsonl(tmp_path / "events")))
    recommender = Recommender(folder)
    wrong = recommender.overlay
    wrong.catch_up()
    wrong._opted.stamps["ann"] = 1
    Checkpoints(folder / "state" / "overlay").write(wrong)
    assert replayed(folder, "2026-01-01", code=1)["equal"] is False
    fresh = Recommender(folder).overlay
    fresh.catch_up()
    assert fresh.opted_out == {"dee"}
    assert fresh.folded == 0
    assert replayed(folder, "2026-01-01")["equal"] is True
    recommender.close()


def test_a_replay_rewinds_the_consumers(folder: Path, tmp_path: Path) -> None:
    recorded(folder, str(as_jsonl(tmp_path / "events")))
    log = LocalLog(folder / "state")
    with log.consumer("copy") as consumer:
        assert len(consumer.poll()) == 4
        consumer.commit()
        assert replayed(folder, "2026-03-02")["groups"] == ["copy"]
    with log.consumer("copy") as consumer:
        again = {each.event.type for each in consumer.poll() if each.event}
    assert again >= {"connect", "opt_out", "profile_update"}  # older ones that came later, too


def test_a_clock_that_goes_back_lets_no_older_event_win(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recommender(folder).record({"type": "opt_in", "user_id": "ann"})
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    Recommender(folder).record({"type": "opt_out", "user_id": "ann"})
    recommender = Recommender(folder)
    recommender.overlay.catch_up()
    assert recommender.overlay.opted_out == {"ann"}
    before = {"type": "opt_in", "user_id": "ann", "timestamp": "2026-01-01"}
    recommender.record(before)  # late
    recommender.overlay.catch_up()
    assert recommender.overlay.opted_out == {"ann"}


@pytest.fixture
def built(tenant: Path, tmp_path: Path) -> Path:
    shutil.copytree(tenant, tmp_path / "tenant", symlinks=True)
    return tmp_path / "tenant"


def test_a_request_hides_the_pair_while_it_stands(built: Path) -> None:
    recommender = Recommender(built)
    users = recommender.release.entities.users.identifiers([0])
    asker = users[0].as_py()

    def shown(user: Any) -> set[Any]:
        return {each.id for each in recommender.recommend(user, "people", 100).recommendations}

    other = next(each for each in sorted(shown(asker)) if asker in shown(each))
    pair = {"user_id": asker, "candidate_id": other}
    recommender.record({"type": "request", **pair})
    assert other not in shown(asker)
    assert asker not in shown(other)
    recommender.record({"type": "withdraw", **pair})
    assert other in shown(asker)
    assert asker in shown(other)
    recommender.record({"type": "request", **pair})
    recommender.record({"type": "decline", "user_id": other, "candidate_id": asker})
    assert other in shown(asker)
    assert asker not in shown(other)


def test_strangers_are_refused_where_events_make_no_users(built: Path) -> None:
    with (built / "nextedge.toml").open("a") as file:
        file.write("[events]\ncreate_users = false\n")
    recommender = Recommender(built)
    known = recommender.release.entities.users.identifiers([0])[0].as_py()
    done = recommender.record_each(
        [
            {"type": "connect", "user_id": known, "candidate_id": "stranger"},
            {"type": "profile_update", "user_id": "stranger", "school": "MIT"},
            {"type": "opt_out", "user_id": "stranger"},
            {"type": "opt_in", "user_id": known},
            {"type": "item_upsert", "item_id": "new", "category": "hats"},
        ]
    )
    assert (done.accepted, done.stored) == (3, 3)
    assert [each.index for each in done.rejected] == [0, 1]
    assert all("unknown user 'stranger'" in each.reason for each in done.rejected)
    assert done.rejected[0].reason.startswith("candidate_id: ")
    with pytest.raises(EventError, match=r"events\.create_users = false"):
        recommender.record({"type": "interact", "user_id": "stranger", "item_id": 1})


def test_a_process_starts_with_the_snapshot_and_forgetting_erases_it(built: Path) -> None:
    recommender = Recommender(built)
    someone, other = recommender.release.entities.users.identifiers([0, 1]).to_pylist()
    recommender.record(
        [
            {"type": "block", "user_id": someone, "candidate_id": other},
            {"type": "opt_out", "user_id": other},
        ]
    )
    recommender.keep_snapshot()
    started = Recommender(built)
    started.overlay.catch_up()
    recommender.overlay.catch_up()
    assert started.overlay.folded == 0
    assert canonical(started.overlay) == canonical(recommender.overlay)
    started.forget(someone)
    assert Checkpoints(built / "state" / "overlay").paths() == []
    for process in (started, recommender):
        process.overlay.catch_up()
        assert not process.overlay.blocked.of(str(other))
        assert process.overlay.opted_out == {str(other)}
