"""URLs of buckets, and the same conditional writes on S3 and Azure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from object_store import free_port

from nextedge.config import Config, parse_config
from nextedge.errors import ConfigError
from nextedge.storage.bucket import Bucket, Unchanged
from nextedge.storage.faults import CREDENTIALS
from nextedge.storage.opening import checked_url, is_bucket, open_store

# the well-known account of Azurite; public, and of no other use
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-08-06"


@pytest.mark.parametrize("url", ["s3://bucket", "gs://my.bucket/a/b", "az://container/a"])
def test_urls_of_buckets(url: str) -> None:
    assert is_bucket(url)
    assert checked_url(url + "/") == url
    assert Config(state=url).state_url == url


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///x",
        "s3://a/b?versionId=1",
        "gs://a#b",
        "ftp://a/b",
        "s3://k:secret@b/c",
        "s3://a//b",
        "s3://a/../b",
        "s3://a/./b",
        "s3://a/%2e%2e/b",
        "s3:/a/b",
        "s3:a",
        "S3:/a",
        "gs:/a",
        "",
        " ",
    ],
)
def test_what_is_no_url_of_a_bucket(url: str) -> None:
    with pytest.raises(ConfigError, match="state: ") as caught:
        parse_config({"state": url}, base=Path(), origin="nextedge.toml")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("page", ["docs/storage.md"])
def test_settings_that_errors_name_are_those_of_the_documentation(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    for said in CREDENTIALS.values():
        for name in re.findall(r"[A-Z]+_[A-Z_]+", said):
            assert f"`{name}`" in text


def test_paths_are_no_buckets(tmp_path: Path) -> None:
    assert not is_bucket("s3/state")
    config = Config(state="./state", base=tmp_path)
    assert config.state_url is None
    assert config.state_path == tmp_path / "state"


def test_the_local_part_of_a_bucket_is_by_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXTEDGE_STATE_HOME", str(tmp_path))
    one, two = Config(state="s3://bucket/a/b"), Config(state="s3://bucket/a-b")
    assert one.state_path.parent == two.state_path.parent == tmp_path
    assert one.state_path != two.state_path
    assert one.state_path == Config(state="s3://bucket/a/b/", base=tmp_path / "x").state_path
    monkeypatch.delenv("NEXTEDGE_STATE_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    assert Config(state="s3://bucket/a").state_path.parent == tmp_path / "home" / "nextedge"


def test_stores_of_google_and_azure_are_made_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("obstore")
    assert type(open_store("gs://bucket/prefix", 1)).__name__ == "GCSStore"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert type(open_store("az://container/prefix", 1)).__name__ == "AzureStore"
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with pytest.raises(ConfigError, match="check AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://container/prefix", 1)


@pytest.fixture(scope="module")
def azure_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container of a running Azurite."""
    pytest.importorskip("obstore")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed (npm install azurite)")
    port, name = free_port(), f"container-{uuid.uuid4().hex[:8]}"
    endpoint = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    server = subprocess.Popen(
        [
            program,
            "--inMemoryPersistence",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--silent",
            "--blobPort",
            str(port),
        ],
        cwd=tmp_path_factory.mktemp("azurite"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = {
        "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
        "AZURE_STORAGE_ENDPOINT": endpoint,
        "AZURE_ALLOW_HTTP": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        _make_container(endpoint, name)
        yield f"az://{name}"
    server.kill()
    server.wait()


def _make_container(endpoint: str, name: str) -> None:
    for _ in range(600):
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        text = (
            f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
            f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
        )
        digest = hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()
        headers = {
            "x-ms-date": date,
            "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}",
        }
        request = urllib.request.Request(
            f"{endpoint}/{name}?restype=container", method="PUT", headers=headers
        )
        try:
            urllib.request.urlopen(request).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.1)
    raise AssertionError("azurite does not answer")


@pytest.mark.parametrize("fixture", ["bucket_url", "azure_url"])
def test_conditional_writes(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bucket = Bucket(f"{request.getfixturevalue(fixture)}/a prefix/ü")
    first = bucket.create("x", b"1")
    assert first is not None
    assert bucket.create("x", b"2") is None
    assert bucket.create("x", b"1") == first  # as when its own answer was lost
    second = bucket.replace("x", b"3", first)
    assert second is not None
    assert bucket.replace("x", b"4", first) is None
    assert bucket.replace("none", b"4", first) is None
    found = bucket.read("x")
    assert found is not None
    assert (found.data, found.version) == (b"3", second)
    with pytest.raises(Unchanged):
        bucket.read("x", unless=second)
    again = bucket.read("x", unless=first)
    assert again is not None
    assert bucket.read("none") is None
    assert bucket.modified("none") is None

    data = bytes(range(256)) * 40_000  # more than one part
    (tmp_path / "file").write_bytes(data)
    bucket.upload("folder/file + ü%.bin", tmp_path / "file")
    bucket.write("folder.not/file", b"")
    assert [(e.name, e.size) for e in bucket.entries("folder")] == [
        ("folder/file + ü%.bin", len(data))
    ]
    digest = bucket.download("folder/file + ü%.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert digest == hashlib.sha256(data).hexdigest()
    assert abs((bucket.now() - datetime.now(UTC)).total_seconds()) < 60
    names = [entry.name for entry in bucket.entries("")]
    assert names == ["folder.not/file", "folder/file + ü%.bin", "x"]
    bucket.delete(["none", *names, "gone"])
    assert bucket.entries("") == []
