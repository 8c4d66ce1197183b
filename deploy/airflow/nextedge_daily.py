"""The daily build of one tenant: each task is one call of the command line.

Put this file into Airflow's DAG folder. Install `nextedge` on the workers, and give all of them the
same tenant folder. A retry continues from the finished steps: see docs/operations.md.

Settings are environment variables of the DAG processor and the workers:

- NEXTEDGE_CONFIG: the tenant's nextedge.toml, or its folder (default /data)
- NEXTEDGE_SURFACES: names with commas between them (default people,items)
- NEXTEDGE_SCHEDULE: cron schedule (default 0 3 * * *)
- NEXTEDGE_POOL: pool of the build tasks (default default_pool). One build at a time runs on a
  tenant: with a pool of one slot the others wait in Airflow, not on a worker.
- NEXTEDGE_PUBLISHED_USERS: number of users with published candidates (default 100000)
- NEXTEDGE: the command (default nextedge)
"""

from __future__ import annotations

import json
import os
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, TaskGroup, chain
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

CONFIG = shlex.quote(os.environ.get("NEXTEDGE_CONFIG", "/data"))
SURFACES = os.environ.get("NEXTEDGE_SURFACES", "people,items").split(",")
POOL = os.environ.get("NEXTEDGE_POOL", "default_pool")
USERS = int(os.environ.get("NEXTEDGE_PUBLISHED_USERS", "100000"))
NEXTEDGE = os.environ.get("NEXTEDGE", "nextedge")

SHARED = ("tables", "entities", "snapshot")
OF_SURFACE = ("windows", "embed", "sources", "index", "rank", "evaluate")
BUILD = f'build -c {CONFIG} --run "$RUN" --wait 3600'
BAD_INPUT = 2


class Call(BashOperator):
    """One call of the command line, without a retry for bad data or settings (exit 2)."""

    def execute(self, context: Any) -> Any:
        """Run the command; later tasks can read its last line of output."""
        try:
            return super().execute(context)
        except AirflowSkipException as error:
            raise AirflowFailException(f"{self.bash_command}: bad data or settings") from error


def call(task_id: str, command: str, **options: Any) -> Call:
    """A task that calls ``nextedge`` with a command that may name $RUN and $RELEASE."""
    return Call(
        task_id=task_id,
        bash_command=f"{NEXTEDGE} {command}",
        env={"RUN": "{{ run_id }}", "RELEASE": "{{ ti.xcom_pull(task_ids='release') or '' }}"},
        append_env=True,
        skip_on_exit_code=BAD_INPUT,
        **options,
    )


def release_id(last_line: str) -> str:
    """The release id in the output of `nextedge build --json`."""
    return str(json.loads(last_line)["release"])


with DAG(
    "nextedge_daily",
    description="Build, judge and serve a new release of recommendations",
    schedule=os.environ.get("NEXTEDGE_SCHEDULE", "0 3 * * *"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
        "execution_timeout": timedelta(hours=4),
        "pool": POOL,
    },
    tags=["nextedge"],
) as dag:
    check = call("check", f"check -c {CONFIG}")
    shared = [call(step, f"{BUILD} --until {step}") for step in SHARED]
    release = call("release", f"{BUILD} --no-promote --json", output_processor=release_id)
    gate = call("gate", f'releases gate "$RELEASE" -c {CONFIG}', retries=0)
    promote = call("promote", f'releases promote "$RELEASE" -c {CONFIG}')
    publish = call("publish", f'publish --release "$RELEASE" --users {USERS} -c {CONFIG}')
    prune = call("prune", f"releases prune --keep 3 -c {CONFIG}")

    chain(check, *shared)
    chain(release, gate, promote, publish, prune)
    for surface in SURFACES:
        with TaskGroup(surface):
            steps = [
                call(step, f"{BUILD} --surface {shlex.quote(surface)} --until {step}")
                for step in OF_SURFACE
            ]
        chain(shared[-1], *steps, release)
