"""State and tables in a bucket, from tables to recommendations, on several machines."""

from __future__ import annotations

import io
import json
import logging
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from object_store import Proxy
from servers import Running

from nextedge import Recommender
from nextedge.build.cache.fingerprint import fingerprint
from nextedge.data.erased_users import ErasedUsers
from nextedge.engines.duckdb import objects
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.engines.duckdb.readers import read_location
from nextedge.errors import DataError, NextEdgeError, UnknownReleaseError
from nextedge.storage.bucket import Bucket

FORGOTTEN = "person-to-be-forgotten"


class Tenant:
    """A tenant in a bucket, as several machines see it."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bucket = Bucket(f"{url}/{uuid.uuid4().hex[:8]}")
        self.data = Bucket(f"{self.bucket.url}/data")
        self.folder = folder
        self._patch = monkeypatch
        self.settings = folder / "nextedge.toml"
        self.settings.write_text(
            f'state = "{self.bucket.url}/state"\n[data]\n'
            f'connections = "{self.data.url}/connections-*.parquet"\nusers = "{self.data.url}/users.csv"\n'
            "[serving]\ndeadline_ms = 0\n[surfaces.people.ranker]\ntrees = 5\n"
        )

    def write_tables(self) -> None:
        ids = np.array([f"u{n}" for n in range(40)], object)
        ids[7] = FORGOTTEN
        edges = np.random.default_rng(7).integers(0, 40, (300, 2))
        for number, part in enumerate(np.array_split(edges, 2)):
            self.write_connections(number, ids[part])
        text = io.BytesIO()
        names = [f"name of {each}" for each in ids]
        pc.write_csv(pa.table({"user_id": ids, "name": names}), text)
        self.data.write("users.csv", text.getvalue())

    def write_connections(self, part: int, ids: np.ndarray) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"src": ids[:, 0], "dst": ids[:, 1]}), sink)
        self.data.write(f"connections-{part}.parquet", sink.getvalue())

    def home(self, machine: str) -> Path:
        return self.folder / machine

    def on(self, machine: str) -> Recommender:
        """The tenant on a machine: it has a folder of its own, and sees the same settings."""
        self._patch.setenv("NEXTEDGE_STATE_HOME", str(self.home(machine)))
        return Recommender(self.settings)


@pytest.fixture(scope="module")
def patch() -> pytest.MonkeyPatch:
    return pytest.MonkeyPatch()


@pytest.fixture(scope="module")
def tenant(bucket_url: str, tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Built on machine ``a``."""
    tenant = Tenant(bucket_url, tmp_path_factory.mktemp("tenant"), patch)
    tenant.write_tables()
    told: list[str] = []
    tenant.on("a").build(progress=lambda text, done, of: told.append(text))
    assert any(text.startswith("upload ") for text in told)
    yield tenant
    patch.undo()


def soon(true: Callable[[], bool], seconds: float = 120.0) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if true():
            return True
        time.sleep(0.05)
    return False


def shown(recommender: Recommender, user: str = "u3") -> list[tuple[str, float]]:
    answer = recommender.recommend(user, "people", 5)
    assert len(answer.recommendations) == 5
    return [(str(one.id), round(one.score, 6)) for one in answer.recommendations]


def test_a_second_machine_recommends_the_same(
    tenant: Tenant, s3_proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = tenant.on("a"), tenant.on("b")
    assert shown(first) == shown(second)
    s3_proxy.asked.clear()
    for _ in range(20):
        shown(second)
    assert len(s3_proxy.asked) <= 2  # looks at CURRENT, not one a request
    with caplog.at_level(logging.WARNING, logger="nextedge"):
        second.start_serving()
        second.close()
    assert "no events.log" in caplog.text


def test_a_build_goes_on_where_another_machine_was_stopped(tenant: Tenant, s3_proxy: Proxy) -> None:
    """All steps are taken from the bucket; the release holds the same files."""
    (before,) = {each.id for each in tenant.on("a").releases.all()}
    told: list[str] = []
    s3_proxy.asked.clear()
    other = tenant.on("c")
    release = other.build(promote=False, progress=lambda text, done, of: told.append(text))
    assert any(text.startswith("rank: download") for text in told)
    assert not [text for text in told if "training" in text or text.startswith("tables: conn")]
    assert s3_proxy.count("GET", "/data/") == 0
    files = [dict(other.releases.get(one).manifest["files"]) for one in (before, release)]
    costs = [each.pop("build.json") for each in files]  # says that steps were taken over
    assert costs[0] != costs[1]
    assert all(step["reused"] for step in other.releases.get(release).costs())
    assert files[0] == files[1]
    work = Bucket(f"{tenant.bucket.url}/state/work")
    done = next(e.name for e in work.entries("") if e.name.startswith("rank-") and "done" in e.name)
    work.delete([done])  # as a machine leaves it that is killed while it uploads
    told.clear()
    tenant.on("d").build(promote=False, progress=lambda text, done, of: told.append(text))
    assert "rank people: training" in told
    assert any(text.startswith("entities: download") for text in told)
    tenant.on("a").releases.prune(1)


def test_a_changed_object_is_a_new_input(tenant: Tenant) -> None:
    recommender = tenant.on("a")
    before = fingerprint(recommender.config)
    assert fingerprint(tenant.on("b").config) == before
    table = pq.read_table(io.BytesIO(_data(tenant, "connections-1.parquet")))
    ids = np.stack([table[name].to_numpy(zero_copy_only=False) for name in ("src", "dst")], 1)
    tenant.write_connections(1, ids[:-1])
    assert fingerprint(recommender.config) != before
    tenant.write_connections(1, ids)
    assert fingerprint(recommender.config) == before  # the same bytes, the same tag
    tenant.write_connections(2, ids)
    assert fingerprint(recommender.config) != before
    tenant.data.delete(["connections-2.parquet"])


def _data(tenant: Tenant, name: str) -> bytes:
    found = tenant.data.read(name)
    assert found is not None
    return found.data


def test_an_object_that_changes_while_it_is_read(tenant: Tenant, s3_proxy: Proxy) -> None:
    content = _data(tenant, "users.csv")
    changed = []

    def rule(method: str, path: str) -> None:
        if method == "GET" and path.endswith("/users.csv") and not changed:
            changed.append(path)
            Bucket(tenant.data.url).write("users.csv", content + b"u41,late\n")

    recommender = tenant.on("a")
    served = recommender.releases.current_id()
    with s3_proxy.obeying(rule), pytest.raises(DataError, match="changed while they were read"):
        recommender.build(fresh=True)
    assert changed
    tenant.data.write("users.csv", content)
    assert recommender.releases.current_id() == served


def test_tables_that_a_store_does_not_give(tenant: Tenant, s3_proxy: Proxy) -> None:
    def said(location: str) -> str:
        with LocalEngine() as engine, pytest.raises(DataError) as caught:
            read_location(engine.session, location, tenant.folder).to_pyarrow()
        assert "secret" not in str(caught.value)
        return str(caught.value)

    assert "no such object; check the setting" in said(f"{tenant.data.url}/none.csv")
    assert "no such object; check the setting" in said(f"{tenant.data.url}/none*.parquet")
    assert "there is no such bucket" in said("s3://none-of-this-name/*.parquet")
    with s3_proxy.obeying(lambda method, path: 403):
        assert "access denied" in said(f"{tenant.data.url}/*.parquet")
    with s3_proxy.obeying(lambda method, path: 403 if "0.parquet" in path else None):
        assert "access denied" in said(f"{tenant.data.url}/connections-*.parquet")
    assert "no such kind of location; valid" in said("ftps3://bucket/u.parquet")


def test_an_outage_is_tried_again_and_a_refusal_is_not(
    tenant: Tenant, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedulers end a run at exit code 2: it must not come of a store that is away for a while."""
    monkeypatch.setattr(objects, "PATIENT_SECONDS", 1.0)
    monkeypatch.setattr(objects, "Bucket", lambda url: Bucket(url, 1.0))
    location = f"{tenant.data.url}/connections-*.parquet"

    def exit_code(rule: Callable[[str, str], int | None]) -> int:
        with s3_proxy.obeying(rule), LocalEngine() as engine:
            with pytest.raises(NextEdgeError) as caught:
                read_location(engine.session, location, tenant.folder).to_pyarrow()
            return caught.value.exit_code

    assert exit_code(lambda method, path: 503 if "list-type" in path else None) == 1
    assert exit_code(lambda method, path: 503 if "0.parquet" in path else None) == 1
    assert exit_code(lambda method, path: 403) == 2


@pytest.mark.slow
def test_workers_follow_what_another_machine_promotes(tenant: Tenant, tmp_path: Path) -> None:
    other = tenant.on("b")
    first = other.releases.current_id()
    second = other.build(promote=False)
    home = tmp_path / "home"
    (home / "one").mkdir(parents=True)
    shutil.copy(tenant.settings, home / "one" / "nextedge.toml")
    tenant.on("server")
    running = Running(home, "--workers", "2")
    try:
        running.wait_until_ready()

        def answered() -> str:
            return str(running.get("/pymk/recommendations?user_id=u3&limit=5").json()["release"])

        assert answered() == first
        tenant.on("b").releases.promote(second)
        assert soon(lambda: {answered() for _ in range(8)} == {second})
    finally:
        running.stop()
    assert tenant.on("c").releases.rollback() == first


def test_serve_says_what_is_missing(tenant: Tenant, tmp_path: Path) -> None:
    (tmp_path / "nextedge.toml").write_text(tenant.settings.read_text().replace("/state", "/empty"))
    command = [sys.executable, "-m", "nextedge", "serve", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "no release yet; run: nextedge build" in done.stderr


@pytest.mark.slow
def test_the_forgotten_are_in_no_object_and_in_no_later_build(tenant: Tenant) -> None:
    """Also on machines that had copies, and that build later from tables that still name them."""
    here, there = tenant.on("a"), tenant.on("b")
    assert here.recommend(FORGOTTEN, "people", 3).known_user
    there.release  # noqa: B018 - it is downloaded
    assert _holding(tenant, "b")
    before = here.releases.names()
    erased = here.forget(FORGOTTEN)
    assert erased.releases == len(before)
    assert _objects_naming(tenant, FORGOTTEN) == []
    assert not set(before) & set(here.releases.names())
    with pytest.raises(UnknownReleaseError):
        tenant.on("new").releases.get(before[0])
    assert FORGOTTEN not in {one for one, _ in shown(here)}
    assert here.forget(FORGOTTEN).releases == 0

    other = tenant.on("b")  # another process there
    release = other.build()
    assert FORGOTTEN in ErasedUsers(other.config.state_path)
    assert _objects_naming(tenant, FORGOTTEN) == []
    assert not _holding(tenant, "b")
    known = other.releases.get(release).path / "entities" / "users.arrow"
    assert FORGOTTEN.encode() not in known.read_bytes()
    assert json.loads(_data_of_state(tenant, "forgotten.json"))["hashes"]


def _data_of_state(tenant: Tenant, name: str) -> bytes:
    found = Bucket(f"{tenant.bucket.url}/state").read(name)
    assert found is not None
    return found.data


def _objects_naming(tenant: Tenant, person: str) -> list[str]:
    state = Bucket(f"{tenant.bucket.url}/state")
    found = ((entry.name, state.read(entry.name)) for entry in state.entries(""))
    return [name for name, blob in found if blob is not None and person.encode() in blob.data]


def _holding(tenant: Tenant, machine: str) -> list[Path]:
    files = [path for path in tenant.home(machine).rglob("*") if path.is_file()]
    return [path for path in files if FORGOTTEN.encode() in path.read_bytes()]
