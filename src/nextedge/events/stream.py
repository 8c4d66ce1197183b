"""The stream job: Spark adds events to the real-time features of a store, for tenants beyond one consumer.

Events come from a topic of Kafka, or from files of JSON lines that appear in a folder. They become
facts, each event once by its id; all facts of one user, or of one item, come together, and are
added to what the store has of them by the same declarations as everywhere. Spark's checkpoint
knows which events a batch has, and the store which batch a value has: after a crash the last batch
is done again, and changes only what it had not changed yet.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nextedge.config import Config
from nextedge.errors import (
    ConfigError,
    EventError,
    InputError,
    MissingDependencyError,
    NoReleaseError,
    StorageError,
)
from nextedge.events.event import Event, parse_event
from nextedge.events.logs.kafka.address import parse_address
from nextedge.events.projections.counted import fact_kind
from nextedge.events.stored_counters import add_batch, key_of, seed
from nextedge.features.backfill import item_category
from nextedge.features.counters import CATEGORY, CONNECT, ITEM, KIND, TIME, USER
from nextedge.graph.snapshot import Entities, Snapshot
from nextedge.releases.shared import open_releases
from nextedge.storage.files import writing
from nextedge.stores.store import Store, open_store
from nextedge.types import Identifier

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

_log = logging.getLogger("nextedge")
_FILE = "counters.sqlite"
_JOB = "nextedge-stream.json"
_STORE_SECONDS = 30.0
LATE = "7 days"
"""How much older than the latest an event may be; it is also how long ids are remembered."""
_UNSET = "200"
"""Spark's own number of parts, far too many for one machine."""
_TOLD = 5
"""Faults of one part of a batch that are logged."""
_AT_ONCE = 5_000
"""Owners whose values are read and written together."""
_COLUMNS = ("event_id", "owner_side", "owner", KIND, TIME, USER, ITEM, CATEGORY)
_SCHEMA = pa.schema([(name, pa.int64() if name == TIME else pa.string()) for name in _COLUMNS])


@dataclass(frozen=True)
class Job:
    """What every task of a stream job knows.

    Attributes:
        id: of the job; values of another are as none.
        as_of: microseconds: facts that are not later are counted in the values it began with.
        store: URL of the store, and the namespace and folder that it is opened with.
        categories: item id → text of its category, as of the release it began with.
        future_seconds: how far ahead of the clock an event's time may be.
    """

    id: str
    as_of: int
    store: tuple[str, str, Path]
    categories: Mapping[str, str]
    future_seconds: float

    def open_store(self) -> Store:
        """The store, with patience: another task may be writing."""
        url, namespace, base = self.store
        return open_store(url, namespace, timeout_seconds=_STORE_SECONDS, base=base)


def counters_store(config: Config) -> Store:
    """Where a tenant's stream job keeps what it counts: ``serving.store``, or a file of the state."""
    url, namespace, base = _store_of(config)
    return open_store(url, namespace, timeout_seconds=_STORE_SECONDS, base=base)


def forget_counted(config: Config, user_id: Identifier) -> None:
    """Delete what a stream job has counted of a user.

    Raises:
        StoreError: the store is not reached.
    """
    if config.serving.store is None and not (config.state_path / _FILE).exists():
        return
    store = counters_store(config)
    try:
        store.delete_many([key_of(USER, user_id)])
    finally:
        store.close()


def run_stream(
    config: Config,
    source: str,
    checkpoint: Path,
    *,
    until_done: bool = False,
    spark: SparkSession | None = None,
    told: Callable[[int, int], None] = lambda batch, events: None,
) -> int:
    """Add events to the store until it is stopped; returns how many batches there were.

    Args:
        source: a folder, or ``kafka://host:9092/topic``.
        checkpoint: a folder that this job alone has, on a disk that all of Spark sees.
        until_done: stop when everything that is there now is counted.
        spark: a session; one is started on this machine's cores where none is given.
        told: the number of each batch that is done, and how many facts it had.

    Raises:
        ConfigError: the source or the store cannot be such.
        StorageError: the job failed; started again it goes on where it was.
    """
    session = spark or _session()
    job = _job(config, checkpoint)
    shared = session.sparkContext.broadcast(job)
    lines = _lines(session, source, config.tenant)
    facts = lines.mapInArrow(lambda batches: _facts(batches, shared.value), _ddl())
    # a connection is one row of either end: an event is the same one for the same owner
    unique = (
        facts.selectExpr("*", f"timestamp_micros({TIME}) AS happened")
        .withWatermark("happened", LATE)
        .dropDuplicatesWithinWatermark(["event_id", "owner_side", "owner"])
    )
    done = 0

    def write(rows: DataFrame, batch: int) -> None:
        nonlocal done
        placed = rows.repartition("owner_side", "owner")
        added = placed.mapInArrow(
            lambda batches: _added(batches, shared.value, batch), "facts long"
        ).collect()
        done += 1
        told(batch, sum(row["facts"] for row in added))

    started = unique.writeStream.foreachBatch(write).option(
        "checkpointLocation", str(checkpoint.resolve() / "spark")
    )
    started = (
        started.trigger(availableNow=True)
        if until_done
        else started.trigger(processingTime="1 second")
    )
    query = started.start()
    try:
        _await(query)
    finally:
        query.stop()
        if spark is None:
            session.stop()
    return done


def _await(query: StreamingQuery) -> None:
    from pyspark.errors import StreamingQueryException

    try:
        query.awaitTermination()
    except StreamingQueryException as error:
        reason = str(error).strip().splitlines()[0]
        raise StorageError(
            f"stream: the job failed ({reason}); start it again with the same checkpoint, "
            "and it goes on where it was"
        ) from error


def _session() -> SparkSession:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise MissingDependencyError("pyspark", "spark", "nextedge stream") from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # what else is on the path may lack us
    builder: Any = SparkSession.builder
    for name in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
        builder = builder.config(name, "false")
    session: SparkSession = builder.appName("nextedge stream").getOrCreate()
    if session.conf.get("spark.sql.shuffle.partitions") == _UNSET:
        cores = session.sparkContext.defaultParallelism
        session.conf.set("spark.sql.shuffle.partitions", str(cores))
    session.sparkContext.setLogLevel("ERROR")
    return session


def _lines(session: SparkSession, source: str, tenant: str) -> DataFrame:
    """Events as text, one a row, as they come."""
    if source.startswith("kafka://"):
        from nextedge.engines.kafka_stream import FORMAT, KafkaStream

        address = parse_address(source, tenant)
        session.dataSource.register(KafkaStream)
        reader = session.readStream.format(FORMAT).option("topic", address.topic)
        return reader.option("secret.settings", json.dumps(dict(address.consumer))).load()
    if "://" in source:
        raise ConfigError(f"{source}: expected a folder, or kafka://host:9092/topic")
    if not Path(source).is_dir():
        raise InputError(f"{source}: no such folder; expected one of files of JSON lines")
    reader = session.readStream.option("maxFilesPerTrigger", 100)
    return reader.text(str(Path(source).resolve()))


def _job(config: Config, checkpoint: Path) -> Job:
    """The job of a checkpoint; a new one begins with what the promoted release has counted."""
    about = checkpoint / _JOB
    snapshot, categories = _release(config)
    url, namespace, base = _store_of(config)
    ids = _category_of_items(snapshot, categories)
    job = Job("", 0, (url, namespace, base), ids, config.events.future_seconds)
    if about.exists():
        known = json.loads(about.read_text())
        return replace(job, id=known["job"], as_of=known["as_of"])
    job = replace(job, id=uuid.uuid4().hex, as_of=0 if snapshot is None else snapshot.as_of)
    if snapshot is not None:
        store = job.open_store()
        try:
            seed(store, snapshot, categories, job.id)
        finally:
            store.close()
    with writing(about):
        checkpoint.mkdir(parents=True, exist_ok=True)
        part = about.with_suffix(f".{os.getpid()}.part")
        with part.open("w") as file:
            json.dump({"job": job.id, "as_of": job.as_of}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(about)
    return job


def _store_of(config: Config) -> tuple[str, str, Path]:
    if config.serving.store is not None:
        return config.serving.store, config.tenant, config.base.resolve()
    config.state_path.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{_FILE}", config.tenant, config.state_path


def _release(config: Config) -> tuple[Snapshot | None, list[str] | None]:
    """The promoted release's snapshot, and the text of each category's code."""
    try:
        release, _ = open_releases(config).current()
    except NoReleaseError:
        return None, None
    entities = Entities.load(release.path / "entities")
    category = item_category(entities.item_attributes)
    texts = None if category is None else [str(each) for each in category.values.to_pylist()]
    return Snapshot.load(release.path / "snapshot", entities), texts


def _category_of_items(snapshot: Snapshot | None, texts: list[str] | None) -> dict[str, str]:
    if snapshot is None or texts is None:
        return {}
    category = item_category(snapshot.entities.item_attributes)
    assert category is not None
    ids = snapshot.entities.items.identifiers(range(len(category.codes))).to_pylist()
    codes = category.codes.tolist()
    return {str(each): texts[code] for each, code in zip(ids, codes, strict=True) if code >= 0}


def _ddl() -> str:
    return ", ".join(f"{each.name} {'long' if each.name == TIME else 'string'}" for each in _SCHEMA)


def _facts(batches: Iterable[pa.RecordBatch], job: Job) -> Iterator[pa.RecordBatch]:
    """Lines as facts, one a user or item that counts it.

    What is no event is named in the log of the task and left out here: its time, or that it has
    none, must not move the watermark.
    """
    faults = 0
    for batch in batches:
        rows: list[dict[str, object]] = []
        latest = (time.time() + job.future_seconds) * 1e6
        for line in batch.column(0).to_pylist():
            if not line or not line.strip():
                continue
            try:
                rows += _of_line(line, job, latest)
            except (ValueError, EventError) as error:
                faults += 1
                if faults <= _TOLD:
                    _log.warning("stream: an event is left out: %.300s", error)
        yield pa.RecordBatch.from_pylist(rows, _SCHEMA)


def _of_line(line: str, job: Job, latest: float) -> list[dict[str, object]]:
    raw = json.loads(line)
    if not isinstance(raw, dict):
        raise EventError("expected one JSON object a line")
    if "event_id" not in raw or "timestamp" not in raw:
        raise EventError("an event of a stream needs event_id and timestamp: it may come again")
    event = parse_event(raw)
    if event.micros > latest:
        raise EventError(f"timestamp: {event.timestamp} is in the future")
    kind = fact_kind(event)
    if kind is None or event.micros <= job.as_of:
        return []
    return _of_event(event, kind, job)


def _of_event(event: Event, kind: str, job: Job) -> list[dict[str, object]]:
    user = str(event.user_id)
    fact: dict[str, object] = {"event_id": event.event_id, KIND: kind, TIME: event.micros}
    if kind == CONNECT:
        ends = (user, str(event.candidate_id))
        return [{**fact, "owner_side": USER, "owner": each, USER: each} for each in ends]
    item = str(event.item_id)
    fact |= {USER: user, ITEM: item, CATEGORY: job.categories.get(item)}
    return [
        {**fact, "owner_side": USER, "owner": user},
        {**fact, "owner_side": ITEM, "owner": item},
    ]


def _added(batches: Iterable[pa.RecordBatch], job: Job, batch: int) -> Iterator[pa.RecordBatch]:
    """Add the facts of a part of the owners to the store."""
    parts = [pa.RecordBatch.from_arrays(each.columns, names=each.schema.names) for each in batches]
    if not sum(map(len, parts)):
        return
    facts = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
    sides, owners = facts.column("owner_side").to_pylist(), facts.column("owner").to_pylist()
    everybody = list(dict.fromkeys(zip(sides, owners, strict=True)))
    store = job.open_store()
    try:
        for start in range(0, len(everybody), _AT_ONCE):
            add_batch(store, facts, everybody[start : start + _AT_ONCE], job.id, batch)
    finally:
        store.close()
    yield pa.RecordBatch.from_pydict({"facts": [len(facts)]})
