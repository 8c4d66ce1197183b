"""Fixtures that tests share: a small synthetic tenant, built once; servers, started once."""

# ruff: noqa: E402

from __future__ import annotations

import os
import shutil
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kernel_cache import kernel_cache

# Set before a library is imported, and inherited by child processes. Models of tests are small:
# threads of BLAS and OpenMP would wait for each other, on cores that the other worker needs.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Tests start many processes: where byte code is not to be written, as in containers, each of them
# would compile every module again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.setdefault("NUMBA_CACHE_DIR", str(kernel_cache(Path(__file__).parents[1])))

import pytest
from kafka_mock import KafkaMock, known_groups
from object_store import Proxy, S3Server, moto_server
from redis_server import RedisServer
from shared_builds import own_copy

FIRST = (
    "e2e/test_recommender.py",
    "contract/test_logs.py",
    "contract/test_kafka.py",
    "contract/test_stores.py",
    "unit/test_bucket.py",
    "unit/data/",
    "unit/test_relay.py",
    "unit/test_consume.py",
    "unit/test_local_log.py",
    "unit/test_events_order.py",
    "unit/test_write_behind.py",
    "parity/",
    "contract/test_engine.py",
    "contract/test_models.py",
    "e2e/test_feedback_loop.py",
)
"""Files that begin, in this order. The first builds the tenant, and with it compiles the kernels,
for minutes on a fresh machine: the other worker meanwhile takes files that need none, and would
compile the same otherwise. Then come files that take long, so that none is left for the end."""
REASON_SECONDS = 10.0
"""A test that takes longer says why in its docstring."""


SPARK = "spark"
"""Files that share a JVM, which starts slowly."""


def group_of(nodeid: str) -> str:
    """What runs in one worker: a file, whose tests share fixtures, or files that share a server."""
    file = nodeid.partition("::")[0]
    spark = file.startswith("tests/parity/") or file == "tests/contract/test_engine.py"
    return SPARK if spark else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of ``FIRST`` come first."""

    def rank(item: pytest.Item) -> int:
        matches = (item.nodeid.startswith(f"tests/{name}") for name in FIRST)
        return next((rank for rank, matched in enumerate(matches) if matched), len(FIRST))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers take whole groups. xdist 3.8 writes its own groups into a field of an item that
    pytest 9.2 does not read any more: ``--dist loadgroup`` alone would scatter them.
    """
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return GroupScheduling(config, log)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Note a test that takes long and does not say why."""
    function = getattr(item, "function", None)
    long = call.when == "call" and call.duration > REASON_SECONDS
    if long and function is not None and not function.__doc__:
        item.user_properties.append(("no_reason", round(call.duration, 1)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that take long and do not say why."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            seconds = dict(getattr(report, "user_properties", ())).get("no_reason")
            if seconds and report.when == "teardown":
                terminalreporter.write_line(
                    f"{report.nodeid}: {seconds} s, and its docstring gives no reason"
                )


# Fewer rows than by default: what is tested is the line, not how good its ranker can get. No
# deadline, as a machine that runs tests may be slow.
FEW_ROWS = "max_rows = 10000\ntop_negatives = 20\nsampled_negatives = 20\n"
SETTINGS = "[serving]\ndeadline_ms = 0\n" + "".join(
    f"[surfaces.{name}.ranker]\n{FEW_ROWS}" for name in ("people", "items")
)


@pytest.fixture(scope="session")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of synthetic tables with a built release of both surfaces.

    Built once a session; each worker has a copy of its own. Tests that record events or build
    again copy it once more.
    """

    def build(folder: Path) -> None:
        from nextedge import Recommender
        from nextedge.data.synthetic import SyntheticConfig, generate_tenant

        generate_tenant(folder, SyntheticConfig(users=600, items=200, seed=3))
        (folder / "nextedge.toml").write_text(SETTINGS)
        Recommender(folder).build()

    return own_copy(tmp_path_factory, "tenant", build)


@pytest.fixture
def own_tenant(tenant: Path, tmp_path: Path) -> Path:
    """A copy of the tenant, for a test that records events or serves."""
    return Path(shutil.copytree(tenant, tmp_path / "tenant"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets; tests that need it skip where it is absent."""
    given = os.environ.get("NEXTEDGE_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set NEXTEDGE_DATA to its folder")
    return folder


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts a redis-server with further options; it ends with the test."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("redis")
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        started.append(RedisServer(tmp_path, *options))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def mock_brokers() -> Iterator[str]:
    """Address of a mock cluster of Kafka that all tests share."""
    pytest.importorskip("confluent_kafka")
    mock = KafkaMock()
    yield mock.servers
    mock.kill()


@pytest.fixture
def kafka_url(mock_brokers: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL on mock brokers, with a topic of the test's own for each tenant."""
    monkeypatch.setattr("nextedge.events.logs.kafka.cluster.KafkaCluster.group_ids", known_groups)
    topic = f"test-{uuid.uuid4().hex[:8]}-{{tenant}}"
    return f"kafka://{mock_brokers}/{topic}?session.timeout.ms=2000&heartbeat.interval.ms=300"


@pytest.fixture(scope="session")
def s3_proxy() -> Iterator[Proxy]:
    """The way to an S3 server process that all tests share."""
    pytest.importorskip("obstore")
    program = moto_server()
    if program is None:
        pytest.skip("moto_server is not installed")
    server = S3Server(program)
    proxy = Proxy(server.port)
    yield proxy
    proxy.stop()
    server.kill()


@pytest.fixture(scope="module")
def bucket_url(s3_proxy: Proxy) -> Iterator[str]:
    """A new bucket for the tests of a file; the environment leads to its server."""
    settings = {
        "AWS_ENDPOINT_URL": s3_proxy.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        request = urllib.request.Request(f"{s3_proxy.url}/{name}", method="PUT")
        urllib.request.urlopen(request).close()
        yield f"s3://{name}"
