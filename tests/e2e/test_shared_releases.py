"""Releases in a bucket, over a real S3 server: two machines, kills, refusals, cut answers."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_store import Proxy

from nextedge.config import Config
from nextedge.errors import (
    BucketError,
    BuildLockedError,
    ConfigError,
    ReleaseError,
    StorageError,
    UnknownReleaseError,
)
from nextedge.releases import current, lease
from nextedge.releases.repository import Releases
from nextedge.releases.shared import SharedReleases
from nextedge.serving import active_release
from nextedge.serving.active_release import WatchedReleases
from nextedge.storage.bucket import Bucket

FILES = {"a/numbers.npy": b"1" * 5000, "b.json": b"{}", "empty": b""}


class Machines:
    """Machines that share one URL; each has a folder of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = f"{url}/{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.config = Config(state=self.url)
        self.bucket = Bucket(self.url)

    def machine(self, name: str) -> SharedReleases:
        """A process on a machine."""
        return SharedReleases(self.folder / name, Bucket(self.url))

    def publish(
        self, releases: SharedReleases, *, promote: bool = True, more: bytes = b"", **files: bytes
    ) -> str:
        source = self.folder / f"source-{uuid.uuid4().hex[:8]}"
        parts = {}
        for name, data in {**FILES, "more": more, **files}.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
            parts[name] = source / name
        return releases.publish(self.config, (), parts, promote=promote)

    def objects(self, prefix: str = "releases") -> list[str]:
        return [entry.name for entry in self.bucket.entries(prefix)]


@pytest.fixture
def machines(bucket_url: str, s3_proxy: Proxy, tmp_path: Path) -> Iterator[Machines]:
    s3_proxy.asked.clear()
    yield Machines(bucket_url, tmp_path)
    s3_proxy.rule = None


def soon(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if true():
            return True
        time.sleep(0.02)
    return False


def test_another_machine_lists_downloads_promotes_and_rolls_back(
    machines: Machines, s3_proxy: Proxy
) -> None:
    here, there = machines.machine("here"), machines.machine("there")
    first, second = (machines.publish(here, more=each) for each in (b"one", b"two"))
    assert [each.id for each in there.all()] == sorted([first, second])
    assert there.current_id() == second
    release, faults = there.current()
    assert (release.id, faults) == (second, [])
    assert (release.path / "more").read_bytes() == b"two"
    assert (release.path / "a/numbers.npy").read_bytes() == FILES["a/numbers.npy"]
    s3_proxy.asked.clear()
    there.verify(there.get(second))
    assert s3_proxy.asked == []  # it is here
    assert there.rollback() == first
    assert machines.machine("here").current_id() == first
    here.promote(second)
    assert machines.machine("there").current_id() == second
    with pytest.raises(UnknownReleaseError, match=f"no release 'x'; .*{first}"):
        there.get("x")


def test_a_trial_is_seen_everywhere_and_keeps_its_release(machines: Machines) -> None:
    here, there = machines.machine("here"), machines.machine("there")
    first, second, third = (machines.publish(here) for _ in range(3))
    there.start_trial(first, 0.2, "old")
    found = machines.machine("here").trial()
    assert found is not None
    assert (found.release, found.share) == (first, 0.2)
    assert there.prune(1) == [second]
    assert there.names() == sorted([first, third])
    with pytest.raises(UnknownReleaseError, match="deleted meanwhile"):
        here._change(lambda pointers: pointers.promoted(second))
    there.end_trial()
    assert machines.machine("here").trial() is None
    assert not [name for name in machines.objects() if second in name]


@pytest.mark.slow
def test_no_promotion_is_lost_and_current_always_names_a_whole_release(machines: Machines) -> None:
    """Four publish at once while a fifth reads; all that was promoted is in the history."""
    done, faults, read = threading.Event(), [], []
    made: list[str] = []

    def publish(name: str) -> None:
        releases = machines.machine(name)
        try:
            for number in range(4):
                made.append(machines.publish(releases, more=f"{name}{number}".encode()))
        except Exception as error:
            faults.append(error)

    def look() -> None:
        while not done.is_set():
            release_id = machines.machine("reader").current_id()
            if release_id is None:
                continue
            try:
                reader = machines.machine(f"reader-{len(read)}")
                reader.verify(reader.get(release_id))
                read.append(release_id)
            except Exception as error:
                faults.append(error)

    publishers = [threading.Thread(target=publish, args=(f"m{n}",)) for n in range(4)]
    reader = threading.Thread(target=look)
    for thread in (*publishers, reader):
        thread.start()
    for thread in publishers:
        thread.join()
    done.set()
    reader.join()
    assert faults == []
    assert read
    history = machines.machine("late")._read().history
    assert sorted(history) == sorted(made)
    assert machines.machine("late").current_id() == history[-1]


def test_promoting_what_is_pruned_at_the_same_time(machines: Machines) -> None:
    """Whoever comes first wins; what is served is whole in both cases."""
    here, there = machines.machine("here"), machines.machine("there")
    outcomes = set()
    for turn in range(6):
        old = machines.publish(here, more=b"old")
        machines.publish(here, more=b"new")
        there.get(old)
        said: list[str] = []

        def promote(old: str = old, said: list[str] = said) -> None:
            try:
                there.promote(old)
                said.append("promoted")
            except UnknownReleaseError as error:
                said.append("refused" if "deleted meanwhile" in str(error) else str(error))

        threads = [threading.Thread(target=promote), threading.Thread(target=here.prune, args=(1,))]
        for thread in threads if turn % 2 else reversed(threads):
            thread.start()
        for thread in threads:
            thread.join()
        late = machines.machine(f"late{turn}")
        late.verify(late.get(str(late.current_id())))
        assert said == ["promoted" if late.current_id() == old else "refused"]
        outcomes.add(said[0])
    assert outcomes


def test_processes_of_a_machine_download_a_release_once(
    machines: Machines, s3_proxy: Proxy
) -> None:
    release = machines.publish(machines.machine("here"))
    s3_proxy.asked.clear()
    program = (
        "import sys; from pathlib import Path; from nextedge.storage.bucket import Bucket\n"
        "from nextedge.releases.shared import SharedReleases\n"
        "releases = SharedReleases(Path(sys.argv[1]), Bucket(sys.argv[2]))\n"
        "releases.verify(releases.get(sys.argv[3])); print('whole')"
    )
    command = [sys.executable, "-c", program, machines.folder / "there", machines.url, release]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [one.communicate(timeout=300)[0].strip() for one in running] == ["whole"] * 3
    assert s3_proxy.count("GET", "numbers.npy") == 1


_PUBLISH_AND_WAIT = """
import sys
from pathlib import Path
from nextedge.config import Config
from nextedge.storage.bucket import Bucket
from nextedge.releases.shared import SharedReleases
state, url, source = sys.argv[1:]
releases = SharedReleases(Path(state), Bucket(url))
parts = {path.name: path for path in Path(source).iterdir()}
with releases.building():
    releases.publish(Config(state=url), (), parts, promote=True)
"""


@pytest.mark.slow
def test_a_publisher_killed_in_the_middle_leaves_nothing_visible(
    machines: Machines, s3_proxy: Proxy
) -> None:
    served = machines.publish(machines.machine("there"))
    source = machines.folder / "source"
    source.mkdir()
    for number in range(20):
        (source / f"part{number}").write_bytes(b"x" * 1000)
    passed = []

    def stall(method: str, path: str) -> str | None:
        if method == "PUT" and "/part" in path:
            passed.append(path)
            return "hang" if len(passed) > 10 else None
        return None

    command = [
        sys.executable,
        "-c",
        _PUBLISH_AND_WAIT,
        machines.folder / "here",
        machines.url,
        source,
    ]
    with s3_proxy.obeying(stall):
        publisher = subprocess.Popen(command)
        assert soon(lambda: len(passed) > 10, 300)
        publisher.send_signal(signal.SIGKILL)
        publisher.wait()
    there = machines.machine("there")
    assert there.names() == [served]
    assert there.current()[0].id == served
    partial = [name for name in machines.objects() if "/part" in name]
    assert partial
    assert there.prune(3) == []
    assert set(partial) <= set(machines.objects())  # its lease may still hold
    with pytest.raises(BuildLockedError, match=rf"process {publisher.pid} on .* since 20.* wait"):
        with there.building():
            pass
    here = machines.machine("here")  # its folder's lock tells that the holder has ended
    with here.building():
        second = machines.publish(here)
    assert machines.machine("there").names() == [served, second]
    assert not [name for name in machines.objects() if "/part" in name]


def test_a_lease_that_is_not_renewed_is_taken_over(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 5.0)
    monkeypatch.setattr(lease, "_RENEWALS", 25)
    here, there = machines.machine("here"), machines.machine("there")
    with here.building():
        held = here._lease
        assert held is not None
        assert soon(lambda: held._about["renewals"] > 3)
        with pytest.raises(BuildLockedError, match="another build holds the lock: process"):
            with there.building():
                pass
        cut_off = pytest.MonkeyPatch()
        cut_off.setattr(held._bucket, "replace", _refuses)
        assert soon(lambda: not lease.lease_is_held(machines.bucket))
        with there.building():
            machines.publish(there)
            cut_off.undo()
            with pytest.raises(BuildLockedError, match="this build lost its lock"):
                machines.publish(here)
    assert len(there.names()) == 1
    assert machines.objects("build.lease") == []


def _refuses(*given: object) -> None:
    raise BucketError("refused")


@pytest.mark.slow
def test_requests_that_fail_now_and_then_are_made_again(
    machines: Machines, s3_proxy: Proxy
) -> None:
    turns: dict[str, int] = {}

    def every_object_once(method: str, path: str) -> int | str | None:
        key = f"{method} {path.partition('?')[0]}"
        turns[key] = turns.get(key, 0) + 1
        if turns[key] > 1:
            return None
        return "cut" if method == "GET" and "numbers.npy" in path else 503

    with s3_proxy.obeying(every_object_once):
        release = machines.publish(machines.machine("here"))
        there = machines.machine("there")
        assert there.current_id() == release
        there.verify(there.get(release))
    assert max(turns.values()) > 1


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, r"cannot be written: access denied \(AccessDenied\)"),
        (503, "cannot be written: SlowDown"),
    ],
)
@pytest.mark.slow
def test_a_bucket_that_refuses_an_upload(
    machines: Machines, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    served = machines.publish(machines.machine("here"))
    here = SharedReleases(machines.folder / "here", Bucket(machines.url, seconds=0.5))
    with s3_proxy.obeying(lambda method, path: status if "numbers" in path else None):
        with pytest.raises(BucketError, match=said):
            machines.publish(here)
    assert machines.machine("there").names() == [served]
    assert [path.name for path in here.directory.glob("*/")] == [served]
    assert machines.machine("there").current()[0].id == served


@pytest.mark.slow
def test_what_is_served_goes_on_while_the_bucket_refuses(
    machines: Machines,
    s3_proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(current, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(current, "RETRY_SECONDS", 0.2)
    here, there = machines.machine("here"), machines.machine("there")
    first, second = machines.publish(here), machines.publish(here, promote=False)

    class Loader:
        repository = there

        def load(self, release_id: str | None) -> str:
            return (there.get(release_id) if release_id else there.current()[0]).id

        def over_live_edges(self, release: str) -> str:
            return release

    monkeypatch.setattr(active_release, "warm_up", lambda *_: None)
    served = WatchedReleases(Loader())  # type: ignore[arg-type]
    try:
        assert served.current == first
        with (
            caplog.at_level(logging.WARNING, logger="nextedge"),
            s3_proxy.obeying(lambda method, path: 503),
        ):
            assert soon(lambda: "what is served stays" in caplog.text)
            time.sleep(1.0)
            assert served.current == first
            assert caplog.text.count("what is served stays") == 1
            alone = machines.machine("there")  # begins while the bucket refuses
            assert alone.current()[0].id == first
        here.promote(second)
        assert soon(lambda: served.current == second)
        s3_proxy.asked.clear()
        began = time.monotonic()
        time.sleep(1.5)
        looks = s3_proxy.count("GET", "CURRENT")
        assert 0 < looks <= (time.monotonic() - began) / 0.2 + 1
        assert len(s3_proxy.asked) == looks
    finally:
        served.stop()


def test_copies_of_deleted_releases_go(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = machines.machine("here"), machines.machine("there")
    first = machines.publish(here)
    path = there.current()[0].path
    second = machines.publish(here)
    assert here.prune(1) == [first]
    assert path.exists()
    monkeypatch.setattr(there._current, "_expires", 0.0)
    assert there.current_id() == second
    assert not path.exists()


def test_altered_objects_are_refused_and_damaged_copies_fetched_again(machines: Machines) -> None:
    here, there = machines.machine("here"), machines.machine("there")
    first, second = machines.publish(here), machines.publish(here)
    machines.bucket.write(f"releases/{second}/b.json", b"[]")
    release, faults = there.current()
    assert release.id == first
    assert "b.json: is not what was written there" in faults[0]
    (release.path / "b.json").write_bytes(b"damage")
    there.verify(release)
    assert (release.path / "b.json").read_bytes() == b"{}"
    machines.bucket.delete([f"releases/{second}/b.json"])
    with pytest.raises(ReleaseError, match=r"b\.json: is missing"):
        there.get(second)
    machines.bucket.write("releases/CURRENT", b"{")
    with pytest.raises(ReleaseError, match="CURRENT: cannot be read"):
        machines.machine("new").current_id()


def test_large_files_go_in_parts(machines: Machines, s3_proxy: Proxy) -> None:
    large = os.urandom(1 << 20) * 20
    machines.publish(machines.machine("here"), more=large)
    assert s3_proxy.count("PUT", "partNumber=") == 3
    release, _ = machines.machine("there").current()
    assert (release.path / "more").read_bytes() == large


@pytest.mark.slow
def test_a_full_disk_is_said_and_leaves_nothing(machines: Machines) -> None:
    machines.publish(machines.machine("here"), more=b"x" * 500_000)
    there = machines.machine("there")
    there.current_id()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as a quota: writes are refused
    try:
        with pytest.raises(StorageError, match="cannot be written: File too large"):
            there.current()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in there.state.rglob("*") if path.name == "more"] == []
    assert there.current()[1] == []


def test_errors_are_said_in_words(
    machines: Machines, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(url: str = machines.url) -> str:
        with pytest.raises(BucketError) as caught:
            Bucket(url, seconds=1).read("releases/CURRENT")
        assert "secret" not in str(caught.value)
        return str(caught.value)

    assert "there is no such bucket" in said("s3://none-of-this-name/x")
    with pytest.raises(BucketError, match="there is no such bucket"):
        Bucket("s3://none-of-this-name/x").entries("releases")
    with s3_proxy.obeying(lambda method, path: 403):
        assert "access denied (AccessDenied)" in said()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "the store is not reached; check AWS_ENDPOINT_URL" in said()
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    assert "plain HTTP" in said()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL = 'localhost:9': expected http"):
        Bucket(machines.url).read("x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    assert "no credentials were found; set AWS_ACCESS_KEY_ID" in said()


def test_a_forked_process_is_told_and_does_not_wait_for_ever(machines: Machines) -> None:
    program = (
        "import os, sys; from nextedge.storage.bucket import Bucket\n"
        "bucket = Bucket(sys.argv[1]); bucket.entries('x')\n"
        "if os.fork() == 0:\n"
        "    try: bucket.entries('x')\n"
        "    except Exception as error: print(type(error).__name__, error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()"
    )
    command = [sys.executable, "-c", program, machines.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("BucketError")
    assert "make the Recommender after the fork" in done.stdout


@pytest.mark.parametrize("name", ["../x", "..", ".", "", "a/b", "a\\b", "/etc", "x\0"])
def test_an_id_that_is_a_path_is_no_release(machines: Machines, name: str) -> None:
    releases = machines.machine("one")
    machines.publish(releases)
    for act in (releases.get, releases.promote, Releases(machines.folder / "one").get):
        with pytest.raises(UnknownReleaseError, match="no release"):
            act(name)
