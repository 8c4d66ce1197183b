"""The program of each process of a training, which torchrun starts here or on many machines.

    torchrun --nproc-per-node 2 -m nextedge.models.distributed.worker FOLDER
    python -m nextedge.models.distributed.worker FOLDER --processes 2

The second runs torchrun's launcher for one machine: on a free port, with the reason for a failure
in ``ended.json``. ``write_job`` fills FOLDER (see ``job``).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from nextedge.errors import NextEdgeError, TrainingError
from nextedge.models.distributed.collectives import Ranks, current_ranks
from nextedge.models.distributed.job import ENDED, LOGS, run_job, write_failure
from nextedge.models.pytorch import import_torch

LAUNCHED = "NEXTEDGE_LAUNCHED"
"""Environment variable of a launcher that must end with the process that started it."""
PATIENCE = timedelta(minutes=30)
"""Longest wait for another process, which may validate or restart meanwhile."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Take part in the training of a folder, or start processes that do; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nextedge.models.distributed.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, help="start so many on this machine")
    parser.add_argument("--restarts", type=int, default=0, help="after the loss of a process")
    options = parser.parse_args(arguments)
    if options.processes is not None:
        return start(options.folder, options.processes, options.restarts)
    return work(options.folder)


def work(folder: Path) -> int:
    """Train as one of the processes; write an error to the folder."""
    if "RANK" in os.environ:
        _end_with_parent()
    rank = int(os.environ.get("RANK", "0"))
    try:
        with joined() as ranks:
            run_job(folder, first=ranks.first)
    except NextEdgeError as error:
        return _failed(folder, rank, error)
    except (MemoryError, RuntimeError) as error:
        # PyTorch reports a failed allocation as a RuntimeError.
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        text = (
            f"process {rank} is out of memory ({error}); set [training] processes lower, "
            'graph = "partitioned", or the model\'s batch or dimensions smaller'
        )
        return _failed(folder, rank, TrainingError(text))
    return 0


def _failed(folder: Path, rank: int, error: NextEdgeError) -> int:
    print(f"error: {error}", file=sys.stderr)
    if folder.is_dir():
        write_failure(folder, rank, error)
    return 1


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of torchrun's environment; one rank where there is none.

    Raises:
        TrainingError: the processes do not find each other.
        MissingDependencyError: torch is not installed.
    """
    if "RANK" not in os.environ:
        yield current_ranks()
        return
    torch = import_torch("by several processes")
    import torch.distributed as dist

    try:
        dist.init_process_group(_backends(torch), timeout=PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise TrainingError(
            f"the processes of the training do not meet at {where}: {str(error).splitlines()[0]}; "
            "give torchrun an address that all machines reach and a port that is free "
            "(--rdzv-endpoint HOST:PORT)"
        ) from None
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        yield current_ranks()
    finally:
        dist.destroy_process_group()


def _backends(torch: Any) -> str:
    """Gloo for tensors in memory, NCCL for tensors on the GPU of this process."""
    if not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return "cpu:gloo,cuda:nccl"


def start(folder: Path, processes: int, restarts: int) -> int:
    """Start processes on this machine by torchrun's launcher and wait for them."""
    import_torch("by several processes")
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if os.environ.pop(LAUNCHED, None):
        _end_with_parent()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="training",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port: trainings side by side do not collide
        local_addr="localhost",
        max_restarts=restarts,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / LOGS), redirects=Std.ALL),
    )
    try:
        elastic_launch(config, sys.executable)(
            "-m", "nextedge.models.distributed.worker", str(folder)
        )
    except ChildFailedError as error:
        codes = {rank: failed.exitcode for rank, failed in error.failures.items()}
        # A killed process is the cause; others then fail because it is gone.
        killed = [r for r, code in codes.items() if code < 0 and code != -signal.SIGTERM]
        lost = killed[0] if killed else error.get_first_failure()[0]
        end = {"rank": lost, "exit": codes[lost], "processes": processes}
        (folder / ENDED).write_text(json.dumps(end))
        return 1
    return 0


def _end_with_parent() -> None:
    """End when the process that started this one ends."""
    parent = os.getppid()

    def watch() -> None:
        # The system gives a process whose parent has ended another parent.
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


if __name__ == "__main__":
    sys.exit(main())
