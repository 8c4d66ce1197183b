"""Plant small faults in a copy of the source, one at a time, and see which the tests catch.

    python bench/mutation/run.py                    # every fault, by the tests that it names
    python bench/mutation/run.py wrong_window ...   # these faults
    python bench/mutation/run.py --all-tests        # then all of `make test` for those not caught

``faults.toml`` lists the faults: a file, its text and the faulty text, and the tests that are
likeliest to fail. Results are appended to ``results.jsonl``.
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
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
    """Exit code of pytest, and the first failure in its words."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "--tb=no", "-rfE"]
    done = subprocess.run(
        [*command, *tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, failures[0] if failures else done.stdout[-300:] + done.stderr[-300:]


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
        with (HERE / "results.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{'caught' if result['caught'] else 'MISSED':7} {result['fault']}: {result['by']}")
    print(f"{caught} of {len(chosen)} caught")


if __name__ == "__main__":
    main()
