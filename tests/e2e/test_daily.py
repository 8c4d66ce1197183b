"""The daily run as cron, Kubernetes and Airflow make it: their files, and runs that are killed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import yaml
from servers import small_tables
from typer.main import get_command

from nextedge import Recommender
from nextedge.build.run import OF_SURFACE, SHARED, STEPS
from nextedge.cli.main import app

DEPLOY = Path(__file__).parents[2] / "deploy"
DAG = DEPLOY / "airflow" / "nextedge_daily.py"
DAILY = DEPLOY / "cron" / "nextedge-daily"
CRONTAB = DEPLOY / "cron" / "nextedge.crontab"
CRONJOB = DEPLOY / "kubernetes" / "cronjob.yaml"
COMMAND = f"{shlex.quote(sys.executable)} -m nextedge"


def parse(words: Sequence[str]) -> list[str]:
    """Parse a call as the command line does, without running it; returns the names of commands.

    Raises:
        UsageError: there is no such command or option, or a value is not of its type.
    """
    command: Any = get_command(app)
    left, names = list(words), []
    while True:
        context = command.make_context(command.name or "nextedge", left, resilient_parsing=False)
        if not hasattr(command, "resolve_command"):
            return names
        name, command, left = command.resolve_command(
            context, context._protected_args + context.args
        )
        names.append(name)


def test_what_cannot_be_called_is_found() -> None:
    assert parse(["releases", "promote", "R", "-c", "x"]) == ["releases", "promote"]
    for wrong in ("build --untill rank", "biuld", "releases promote", "build --wait soon"):
        with pytest.raises(Exception, match=r"No such|Missing|valid number"):
            parse(wrong.split())


class Recorded:
    """Stands for whatever the DAG file imports from Airflow, and keeps how it is called."""

    calls: list[dict[str, Any]] = []

    def __init__(self, *given: Any, **named: Any) -> None:
        Recorded.calls.append(named)

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The words of the DAG's calls by their task, read without Airflow."""
    sdk = {"DAG": Recorded, "TaskGroup": Recorded, "chain": lambda *_: None}
    faults = {"AirflowFailException": Exception, "AirflowSkipException": Exception}
    bash = {"BashOperator": Recorded}
    for name, parts in {
        "airflow": {},
        "airflow.sdk": sdk,
        "airflow.sdk.exceptions": faults,
        "airflow.providers": {},
        "airflow.providers.standard": {},
        "airflow.providers.standard.operators": {},
        "airflow.providers.standard.operators.bash": bash,
    }.items():
        module = ModuleType(name)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Recorded, "calls", [])
    exec(compile(DAG.read_text(), str(DAG), "exec"), {"__name__": "dag"})
    return {
        f"{place}-{call['task_id']}": shlex.split(call["bash_command"])
        for place, call in enumerate(c for c in Recorded.calls if "task_id" in c)
    }


def test_every_task_of_the_dag_is_a_call_that_exists(tasks: dict[str, list[str]]) -> None:
    names = []
    for words in tasks.values():
        assert words[0] == "nextedge"
        names.append(" ".join(parse(words[1:])))
    assert {"check", "build", "releases gate", "releases promote", "publish"} <= set(names)
    until = [w[w.index("--until") + 1] for w in tasks.values() if "--until" in w]
    assert until == [*SHARED, *(step.name for step, _ in OF_SURFACE), *STEPS[len(SHARED) :]]


def test_every_call_of_the_wrapper_exists(tmp_path: Path) -> None:
    called = tmp_path / "called"
    stand_in = tmp_path / "nextedge"
    stand_in.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >>{called}\n'
        'case "$*" in build*) echo \'{"release": "R1", "path": "p"}\' ;;\n'
        '*gate*) echo \'{"release": "R1", "served": null, "faults": []}\' ;; esac\n'
    )
    stand_in.chmod(0o755)
    done = daily(tmp_path, tmp_path, NEXTEDGE=str(stand_in))
    assert done.returncode == 0, done.stderr
    calls = called.read_text().splitlines()
    assert [" ".join(parse(line.split())) for line in calls] == [
        "build",
        "releases gate",
        "releases promote",
        "publish",
        "releases prune",
    ]
    assert all("R1" in line for line in calls[1:4])


@pytest.mark.parametrize(
    ("code", "command", "times", "exits"),
    [
        (1, "build", 3, 1),
        (2, "build", 1, 2),
        (1, "publish", 3, 1),
        (1, "gate", 3, 1),  # without a verdict: the store was not reached, or a kill
    ],
)
def test_what_the_wrapper_tries_again(
    tmp_path: Path, code: int, command: str, times: int, exits: int
) -> None:
    called, stand_in = tmp_path / "called", tmp_path / "nextedge"
    stand_in.write_text(
        f'#!/bin/sh\necho "$*" >>{called}\ncase "$*" in *{command}*) exit {code} ;;\n'
        'build*) echo \'{"release": "R1"}\' ;; *gate*) echo \'{"faults": []}\' ;; esac\n'
    )
    stand_in.chmod(0o755)
    done = daily(tmp_path, tmp_path, NEXTEDGE=str(stand_in), TRIES="3", LOG=str(tmp_path / "log"))
    assert done.returncode == exits
    assert sum(command in line for line in called.read_text().splitlines()) == times
    assert str(tmp_path / "log") in done.stderr  # what cron mails


def test_a_refusal_of_the_gate_ends_the_run(tmp_path: Path) -> None:
    called, stand_in = tmp_path / "called", tmp_path / "nextedge"
    stand_in.write_text(
        f'#!/bin/sh\necho "$*" >>{called}\ncase "$*" in build*) echo \'{{"release": "R1"}}\' ;;\n'
        '*gate*) echo \'{"release": "R1", "served": "R0", "faults": ["people: less"]}\'; exit 1 ;; esac\n'
    )
    stand_in.chmod(0o755)
    assert daily(tmp_path, tmp_path, NEXTEDGE=str(stand_in)).returncode == 3
    assert [line.split()[0] for line in called.read_text().splitlines()] == ["build", "releases"]
    again = daily(tmp_path, tmp_path, NEXTEDGE=str(stand_in))
    assert "was done before" in again.stderr


def settings(tmp_path: Path, **given: str) -> dict[str, str]:
    fixed = {"NEXTEDGE": COMMAND, "RUN": "monday", "DELAY": "0", "LOCK": str(tmp_path / "lock")}
    return {**os.environ, **fixed, **given}


def daily(folder: Path, tmp_path: Path, **given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DAILY), str(folder)],
        env=settings(tmp_path, **given),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def calls_below(process: psutil.Process) -> list[psutil.Process]:
    """The running calls of the command line below a process."""
    found = []
    for child in process.children(recursive=True):
        try:
            if "nextedge" in child.cmdline()[1:] and Path(child.exe()).name.startswith("python"):
                found.append(child)
        except psutil.Error:
            continue
    return found


def until_said(log: Path, text: str, after: int = 0) -> int:
    """Wait until a log says something after a position; returns where the log then ends."""
    for _ in range(3000):
        said = log.read_text() if log.exists() else ""
        if text in said[after:]:
            return len(said)
        time.sleep(0.1)
    pytest.fail(f"{text!r} was not said: {said}")


@pytest.mark.slow
def test_a_run_of_cron_that_is_killed_goes_on(tmp_path: Path) -> None:
    folder, log = small_tables(tmp_path / "acme", settings=""), tmp_path / "log"
    first = subprocess.Popen(
        [str(DAILY), str(folder)], env=settings(tmp_path, LOG=str(log)), start_new_session=True
    )
    place = until_said(log, "rank people: candidates")
    (build,) = calls_below(psutil.Process(first.pid))
    build.kill()  # the build alone: the wrapper tries again
    place = until_said(log, "rank people: candidates", place)
    assert "exit 137; again in 0 s" in log.read_text()
    calls = calls_below(psutil.Process(first.pid))
    os.killpg(first.pid, signal.SIGKILL)  # all of it
    first.wait()
    psutil.wait_procs(calls)
    assert not Recommender(folder).releases.all()
    done = daily(folder, tmp_path, LOG=str(log))
    assert done.returncode == 0, log.read_text()
    last = log.read_text()[place:]
    for step in ("tables", "entities", "snapshot", "embed", "sources", "index"):
        assert f"{step}: unchanged" in last
    assert "rank people: candidates" in last
    (release,) = Recommender(folder).releases.all()
    assert Recommender(folder).releases.current_id() == release.id
    again = daily(folder, tmp_path)
    assert again.returncode == 0
    assert "was done before" in again.stderr
    assert len(Recommender(folder).releases.all()) == 1


def test_two_runs_of_cron_do_not_meet(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = daily(tmp_path, tmp_path)
    assert refused.returncode == 1
    assert "another run" in refused.stderr


def test_the_crontab_calls_the_wrapper_with_what_it_sets() -> None:
    lines = [line for line in CRONTAB.read_text().splitlines() if line and line[0] != "#"]
    named = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]+=", line))
    (entry,) = (line for line in lines if not re.match(r"[A-Z]+=", line))
    *fields, command = entry.split(None, 5)
    assert len(fields) == 5
    assert all(re.fullmatch(r"[\d*,/-]+", field) for field in fields)
    assert command.split()[0] == DAILY.name
    assert set(re.findall(r"\$(\w+)", command)) <= set(named)
    assert os.access(DAILY, os.X_OK)


def test_the_cron_job_calls_what_the_image_holds() -> None:
    job = yaml.safe_load(CRONJOB.read_text())["spec"]
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (
        f"COPY deploy/cron/{container['command'][0]} /usr/local/bin/"
        in (DEPLOY / "Dockerfile").read_text()
    )
    wrapper = DAILY.read_text()
    assert all(re.search(rf"\$\{{{each['name']}:-", wrapper) for each in container["env"])
    assert job["concurrencyPolicy"] == "Forbid"
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy needs it


def test_the_image_holds_what_the_services_need() -> None:
    """Indexes above ``index.exact_search_max_items``, `serve-shard` of compose.yaml, and a bucket as state."""
    extras = re.search(r"'\.\[([a-z0-9,]+)\]'", (DEPLOY / "Dockerfile").read_text())
    assert extras is not None
    assert {"ann", "redis", "s3"} <= set(extras[1].split(","))
    assert "serve-shard" in (DEPLOY / "compose.yaml").read_text()


@pytest.fixture
def tools() -> Path:
    """Folder of the programs of the environment that `make test-airflow` makes."""
    python = os.environ.get("NEXTEDGE_AIRFLOW")
    if python is None:
        pytest.skip("Airflow is not run; run: make test-airflow")
    return Path(python).parent


@pytest.mark.slow
def test_the_schedules_are_what_their_readers_take(tools: Path) -> None:
    job = subprocess.run(
        [tools / "kubernetes-validate", "--strict", CRONJOB],
        capture_output=True,
        text=True,
        check=False,
    )
    assert job.returncode == 0, job.stdout + job.stderr
    lint = [tools / "yamllint", "-d", "{extends: default, rules: {line-length: {max: 110}}}"]
    assert subprocess.run([*lint, CRONJOB], check=False).returncode == 0
    (entry,) = re.findall(r"^[\d*].*", CRONTAB.read_text(), re.MULTILINE)
    schedule = " ".join(entry.split()[:5])
    program = "import croniter, sys; sys.exit(not croniter.croniter.is_valid(sys.argv[1]))"
    for text in (schedule, yaml.safe_load(CRONJOB.read_text())["spec"]["schedule"]):
        assert subprocess.run([tools / "python", "-c", program, text], check=False).returncode == 0


@pytest.fixture
def killed_once(tmp_path: Path) -> Iterator[threading.Event]:
    """Kills the first call that trains a ranker below this process; set once it has."""
    killed, over = threading.Event(), threading.Event()

    def watch() -> None:
        log = tmp_path / "airflow.log"
        while not over.wait(0.05):
            if log.exists() and "rank people: candidates" in log.read_text():
                for call in calls_below(psutil.Process()):
                    if "rank" in call.cmdline():
                        call.kill()
                        killed.set()
                        return

    thread = threading.Thread(target=watch)
    thread.start()
    yield killed
    over.set()
    thread.join()


@pytest.mark.slow
def test_airflow_runs_the_dag_over_a_kill(
    tools: Path, tmp_path: Path, killed_once: threading.Event
) -> None:
    folder = small_tables(tmp_path / "acme", settings="")
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAG.parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "NEXTEDGE": COMMAND,
        "NEXTEDGE_CONFIG": str(folder),
        "NEXTEDGE_SURFACES": "people",
    }
    airflow = str(tools / "airflow")
    subprocess.run([airflow, "db", "migrate"], env=environment, capture_output=True, check=True)
    log = tmp_path / "airflow.log"
    with log.open("wb") as output:
        run = subprocess.run(
            [airflow, "dags", "test", "nextedge_daily"],
            env=environment,
            stdout=output,
            stderr=output,
            timeout=900,
            check=False,
        )
    said = log.read_text()
    assert run.returncode == 0, said
    assert killed_once.is_set()
    calls = re.findall(r"Running command: .*?nextedge (.*?)'\]", said)
    assert sum("--until rank" in call for call in calls) == 2
    assert len(calls) == 14 + 1  # every task once, and what was killed once more
    (release,) = Recommender(folder).releases.all()
    assert Recommender(folder).releases.current_id() == release.id
    assert (
        json.loads(next((folder / "state" / "runs").glob("*.json")).read_text())["release"]
        == release.id
    )
