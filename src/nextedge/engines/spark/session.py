"""Open a Spark session for builds: UTC, Arrow, adaptive plans and retried tasks."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SHARE = 0.25  # of the memory for the driver: block functions run in Python beside it
_SETTINGS = {
    # timestamps without a zone are UTC in every engine
    "spark.sql.session.timeZone": "UTC",
    # a cast that fails raises, as in DuckDB, instead of giving NULL
    "spark.sql.ansi.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Spark's default, INT96, is read back as nanoseconds
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.adaptive.skewJoin.enabled": "true",
    # may merge the parts of a sorted result, but never changes their order
    "spark.sql.adaptive.coalescePartitions.enabled": "true",
}
_AT_START = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.maxResultSize": "0",  # callers bound the results
}
_UNSET = "200"  # Spark's own number of parts, far too many for one machine


def open_session() -> SparkSession:
    """The running session, or a new one on this machine or the cluster that the environment names."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    running = SparkSession.getActiveSession()
    if running is None:
        builder: Any = SparkSession.builder.appName("nextedge build")
        if not os.environ.get("MASTER") and "PYSPARK_GATEWAY_PORT" not in os.environ:
            # otherwise Spark looks up the host name, which not every machine can resolve
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            # four attempts of a task, as on a cluster
            builder = builder.master(f"local[{os.cpu_count()},4]")
            builder = builder.config("spark.driver.memory", f"{_driver_mib()}m")
            for name, value in _AT_START.items():
                builder = builder.config(name, value)
        running = builder.getOrCreate()
        running.sparkContext.setLogLevel("ERROR")
    for name, value in _SETTINGS.items():
        running.conf.set(name, value)
    if running.conf.get("spark.sql.shuffle.partitions") == _UNSET:
        parts = max(running.sparkContext.defaultParallelism * 2, 2)
        running.conf.set("spark.sql.shuffle.partitions", str(parts))
    return running


def _driver_mib() -> int:
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    return max(1024, int(page * pages * _SHARE) >> 20)
