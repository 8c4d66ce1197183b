"""Plant small faults in a copy of the source, one at a time, and see which the tests catch.

    python bench/mutation/run.py                    # every fault, by the tests that it names
    python bench/mutation/run.py wrong_window ...   # these faults
    python bench/mutation/run.py --all-tests        # then all of `make test` for those not caught

``faults.toml`` lists the faults: a file, its text and the faulty text, and the tests that are
likeliest to fail. Results are appended to
``results.jsonl`` in the folder of the copy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("NUMBA_CACHE_DIR", str(CHECKOUT / ".cache" / "numba" / "mutation"))
# Imported once, before each fault is planted in a forked process: no module of ours.
for _name in (
    "duckdb",
    "fastapi.testclient",
    "ibis",
    "lightgbm",
    "numba",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "scipy.sparse",
    "sklearn.isotonic",
    "typer",
):
    import_module(_name)

CAUGHT, PASSED = 1, 0
"""Exit codes of pytest; any other says that no test ran."""


def copied(folder: Path) -> Path:
    """A copy of all tracked files; compiled kernels of a former copy stay."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    for part in ("src", "tests"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for name in names:
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    return folder


def run_tests(folder: Path, tests: list[str]) -> tuple[int, str]:
    """Exit code of pytest in a forked process, and the first failure in its words."""
    log = folder / "pytest.log"
    child = os.fork()
    if not child:
        with log.open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder / "src")
        sys.path.insert(0, str(folder / "src"))
        options = ["-x", "-q", "-m", "not slow", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
        options += [
            "-p",
            "no:schemathesis",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]  # what was imported before
        code = pytest.main([*options, *tests])
        sys.stdout.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = log.read_text()
    failures = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if code == CAUGHT and not failures:
        raise SystemExit(said)  # pytest itself failed
    return code, failures[0] if failures else said[-300:]


def out_of_date(folder: Path, faults: list[dict[str, Any]]) -> list[str]:
    """The faults whose text their file does not have exactly once."""
    found = []
    for fault in faults:
        file = folder / fault["file"]
        times = file.read_text().count(fault["old"]) if file.exists() else 0
        if times != 1:
            found.append(f"{fault['name']}: {fault['file']} has its text {times} times")
    return found


def planted(folder: Path, fault: dict[str, Any], *, all_tests: bool) -> dict[str, Any]:
    """Plant a fault, run the tests, and take it out again."""
    file = folder / fault["file"]
    text = file.read_text()
    file.write_text(text.replace(fault["old"], fault["new"]))
    started = time.monotonic()
    try:
        code, why = run_tests(folder, fault["tests"])
        if code == PASSED and all_tests:
            code, why = run_tests(folder, [])
    finally:
        file.write_text(text)
    return {
        "fault": fault["name"],
        "file": fault["file"],
        "caught": code == CAUGHT,
        "code": code,
        "by": why.split(" - ")[0].removeprefix("FAILED ").removeprefix("ERROR "),
        "seconds": round(time.monotonic() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all-tests", action="store_true")
    parser.add_argument("--folder", type=Path, default=CHECKOUT / ".cache" / "mutation")
    asked = parser.parse_args()
    faults = tomllib.loads((HERE / "faults.toml").read_text())["fault"]
    chosen = [fault for fault in faults if not asked.names or fault["name"] in asked.names]
    folder, caught = copied(asked.folder), 0
    if wrong := out_of_date(folder, chosen):
        raise SystemExit("\n".join(wrong))
    for fault in chosen:
        result = planted(folder, fault, all_tests=asked.all_tests)
        caught += result["caught"]
        with (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(flush=True, end="")
        print(f"{'caught' if result['caught'] else 'MISSED':7} {result['fault']}: {result['by']}")
    print(f"{caught} of {len(chosen)} caught")


if __name__ == "__main__":
    main()
