"""Start a training: in this process, in several by torchrun, or on the executors of Spark."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nextedge.config import TrainingConfig
from nextedge.cores import THREADS_VARIABLE, thread_count
from nextedge.engines.spark.session import open_session
from nextedge.errors import MissingDependencyError, TrainingError
from nextedge.models.artifact import Artifact
from nextedge.models.distributed.job import (
    ENDED,
    LOGS,
    PROGRESS,
    clear_job,
    failure,
    result,
    write_job,
)
from nextedge.models.distributed.worker import LAUNCHED
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_READ_EVERY = 0.2
"""Seconds between reads of the progress file."""
_GRACE = 10.0
"""Seconds for a launcher to stop its processes."""


class Launcher(ABC):
    """Runs the folder of a job (see ``job``) in a number of processes."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    @abstractmethod
    def run(self, folder: Path, progress: ProgressOfRanks) -> None:
        """Run the training to its end.

        Raises:
            TrainingError: it failed; the message names the lost process and what to do.
        """


def fit(
    model: Model,
    data: TrainingData,
    config: ModelConfig,
    progress: ModelProgress,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
) -> Artifact:
    """Fit a model by the launcher of the settings; without gradients, in this process.

    Raises:
        TrainingError: it could not be trained, or a process was lost.
    """
    data = replace(data, partitioned=training.graph == "partitioned")
    launcher = launcher_of(training)
    if launcher is None or not (model.trained and model.extra == "train"):
        return model.fit(data, config, progress)
    with _folder_of(data) as folder:
        write_job(folder, model, data, config)
        reported = ProgressOfRanks(folder / PROGRESS, model.name, progress)
        launcher.run(folder, reported)
        # The first process may write its last lines after the launcher's last look.
        reported.read()
        fitted = result(folder)
        clear_job(folder)
        return fitted


def launcher_of(training: TrainingConfig) -> Launcher | None:
    """The launcher of the settings; None where this process trains alone."""
    processes = training.processes
    if processes == 1:
        return None
    if training.launcher == "spark":
        return SparkLauncher(processes)
    return TorchrunLauncher(processes, training.restarts)


@contextmanager
def _folder_of(data: TrainingData) -> Iterator[Path]:
    if data.directory is not None:
        yield data.directory.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="nextedge-training-") as folder:
        yield Path(folder)


class ProgressOfRanks:
    """Passes on the progress that the first process writes."""

    def __init__(self, path: Path, model: str, progress: ModelProgress) -> None:
        self.path, self.model, self.progress = path, model, progress
        self.done, self.total, self._read = 0, 0, 0

    def read(self) -> None:
        """Pass on new lines of the progress file."""
        if not self.path.exists():
            return
        with self.path.open() as file:
            file.seek(self._read)
            # A line without an end is still being written.
            while (line := file.readline()).endswith("\n"):
                self._read += len(line.encode())
                text, self.done, self.total = json.loads(line)
                self.progress(text, self.done, self.total)

    @property
    def epoch(self) -> str:
        """The epoch that the training is in, in words."""
        if not self.total:
            return "before the first epoch ended"
        return f"in epoch {self.done + 1} of {self.total}"


class TorchrunLauncher(Launcher):
    """Processes on this machine, by torchrun; they share its cores."""

    def __init__(self, processes: int, restarts: int = 0) -> None:
        super().__init__(processes)
        self.restarts = restarts

    def run(self, folder: Path, progress: ProgressOfRanks) -> None:
        _require_torch()
        (folder / LOGS).mkdir(exist_ok=True)
        # A process of its own: the build needs neither torch nor torchrun's signal handlers.
        worker = [sys.executable, "-m", "nextedge.models.distributed.worker", str(folder)]
        command = [*worker, f"--processes={self.processes}", f"--restarts={self.restarts}"]
        with (folder / LOGS / "launcher.log").open("wb") as log:
            code = self._wait(command, log, progress)
        if code != 0:
            raise self._error(folder, progress, code)

    def _wait(self, command: list[str], log: IO[bytes], progress: ProgressOfRanks) -> int:
        environment = {**os.environ, **threads_of(self.processes), LAUNCHED: "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        try:
            while process.poll() is None:
                time.sleep(_READ_EVERY)
                progress.read()
        finally:
            if process.poll() is None:  # interrupted: the launcher stops its processes
                process.terminate()
                try:
                    process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()  # its processes end with it
                    process.wait()
        return process.returncode

    def _error(self, folder: Path, progress: ProgressOfRanks, code: int) -> Exception:
        # The error of a process says more than its exit code.
        if (known := failure(folder)) is not None:
            return known
        if not (folder / ENDED).exists():
            log = _tail(folder / LOGS / "launcher.log")
            return TrainingError(
                f"{progress.model}: torchrun's launcher ended with {code} {progress.epoch}: {log}"
            )
        end = json.loads((folder / ENDED).read_text())
        log = _log_of(folder, end["rank"])
        return lost(progress, end["rank"], end["processes"], end["exit"], log)


class SparkLauncher(Launcher):
    """Processes on Spark's executors, or on its driver, by TorchDistributor.

    The executors need NextEdge with its extra ``train``, and must see the folder of the job.
    """

    def __init__(self, processes: int, *, local: bool = False) -> None:
        super().__init__(processes)
        self.local = local

    def run(self, folder: Path, progress: ProgressOfRanks) -> None:
        _require_torch()
        try:
            from pyspark.ml.torch.distributor import TorchDistributor
        except ImportError:
            raise MissingDependencyError("pyspark", "spark", "training on Spark") from None
        session = open_session()
        _check_slots(session, self.processes, local=self.local)
        script = folder / "train.py"
        script.write_text(_SCRIPT)
        distributor = TorchDistributor(self.processes, local_mode=self.local, use_gpu=False)
        with _reading(progress), _environment(threads_of(self.processes) if self.local else {}):
            try:
                distributor.run(str(script), str(folder))
            except Exception as error:
                progress.read()
                raise failure(folder) or TrainingError(
                    f"{progress.model}: Spark lost a process of the training {progress.epoch}: "
                    f"{_why(str(error))}; the others were stopped. Run the same command again: it "
                    "goes on after the last epoch that was finished"
                ) from None
            finally:
                script.unlink(missing_ok=True)


# By a script's path, so that Spark pickles nothing.
_SCRIPT = """import sys

from nextedge.models.distributed.worker import main

if __name__ == "__main__":
    sys.exit(main())
"""


def _check_slots(session: SparkSession, processes: int, *, local: bool) -> None:
    # A barrier stage starts no process before all of them have a slot.
    slots = session.sparkContext.defaultParallelism
    if not local and processes > slots:
        raise TrainingError(
            f"{processes} processes shall train at the same time, and Spark runs {slots} tasks; "
            "set [training] processes lower, or give Spark more cores"
        )


def lost(
    progress: ProgressOfRanks, rank: int, processes: int, code: int, log: str
) -> TrainingError:
    """The error of a process that ended without one of its own."""
    if code < 0:
        how = f"was killed ({signal.Signals(-code).name})"
        if code == -signal.SIGKILL:
            how += (
                "; where nobody did it, memory ran out: set [training] processes lower, or "
                'graph = "partitioned"'
            )
    else:
        how = f"ended with {code}: {log}"
    return TrainingError(
        f"{progress.model}: process {rank} of {processes} (from 0), {progress.epoch}, {how}. The others were "
        "stopped. Run the same command again: it goes on after the last epoch that was finished"
    )


def threads_of(processes: int) -> dict[str, str]:
    """Environment variables that share the cores of a machine among processes."""
    # Each process alone would take all cores.
    threads = str(max(1, thread_count() // processes))
    return {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, THREADS_VARIABLE: threads}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _reading(progress: ProgressOfRanks) -> Iterator[None]:
    """Pass on progress while this thread waits for another call."""
    over = threading.Event()

    def read() -> None:
        while not over.wait(_READ_EVERY):
            progress.read()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _log_of(folder: Path, rank: int) -> str:
    logs = sorted(folder.glob(f"{LOGS}/*/attempt_*/{rank}/stderr.log"))
    return _tail(logs[-1]) if logs else "no log"


def _tail(path: Path, lines: int = 3) -> str:
    text = path.read_text(errors="replace").strip() if path.exists() else ""
    return " ".join(text.splitlines()[-lines:]) or "no log"


def _why(text: str) -> str:
    """The line of torchrun's report that names an exit code, else the line of a Python error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ended = [line for line in lines if "exitcode" in line]
    raised = [line for line in lines if re.match(r"\w*(Error|Exception): ", line)]
    return (ended or raised or lines or ["no reason given"])[-1]


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("torch", "train", "training by several processes")
