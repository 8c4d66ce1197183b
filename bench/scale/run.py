"""Build a tenant of a stated size under a memory limit; seconds and memory of every step.

The build runs in a process of its own. Its anonymous memory and what it maps are read from /proc
twenty times a second, and it is stopped where it takes more than the limit. Run again with the
same folder, a build goes on where it stopped.

    python bench/scale/run.py --users 5000000 --edges 100000000 --folder big --memory-gib 18
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_EVERY_S = 0.05
_MARK = "doing: "


@dataclass
class Part:
    """What one part of a build took: seconds, and the most memory at any moment, MiB."""

    name: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_anonymous_mib: float = 0.0
    peak_mapped_mib: float = 0.0


def build_here(folder: Path, limit_gib: float) -> None:
    """In the child: build, and tell the parent on stdout what is being done."""
    from nextedge import Recommender
    from nextedge.config import BuildConfig, load_config

    config = load_config(folder)
    if limit_gib:
        config = config.model_copy(update={"build": BuildConfig(memory_gib=limit_gib)})

    def told(text: str, done: int, total: int) -> None:
        print(f"{_MARK}{text}", flush=True)

    print(Recommender(config).build(progress=told), flush=True)


def watched(command: list[str], limit_mib: float) -> tuple[list[Part], str, int]:
    """Run a build; returns its parts in order, what it printed last, and its exit status.

    One with more anonymous memory than the limit is killed. (RLIMIT_DATA would count what was
    asked for and given back, or never written.)
    """
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    parts = [Part("start")]
    done = threading.Event()

    def sample() -> None:
        before, cpu_before = time.perf_counter(), 0.0
        while not done.wait(_EVERY_S):
            now, (anonymous, mapped, cpu) = time.perf_counter(), _usage(child.pid)
            part = parts[-1]
            part.seconds += now - before
            part.cpu_seconds += max(cpu - cpu_before, 0.0)
            part.peak_anonymous_mib = max(part.peak_anonymous_mib, anonymous)
            part.peak_mapped_mib = max(part.peak_mapped_mib, mapped)
            before, cpu_before = now, max(cpu, cpu_before)
            if limit_mib and anonymous > limit_mib:
                print(f"{anonymous:.0f} MiB: over the limit", file=sys.stderr, flush=True)
                child.kill()
                return

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    last = ""
    assert child.stdout is not None
    for line in child.stdout:
        last = line.strip()
        if last.startswith(_MARK) and (name := last.removeprefix(_MARK)) != parts[-1].name:
            print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
            parts.append(Part(name))
    status = child.wait()
    done.set()
    sampler.join()
    return parts, last, status


def _usage(process: int) -> tuple[float, float, float]:
    """Anonymous and mapped MiB, and processor seconds, of a process; zeros once it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        spent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0, 0.0
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    anonymous, mapped = (
        int(found.get(name, "0 kB").split()[0]) / 1024 for name in ("RssAnon", "RssFile")
    )
    return anonymous, mapped, (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")


def _table(parts: list[Part]) -> str:
    rows = [f"{'part':44s} {'s':>8s} {'cpu s':>8s} {'anon MiB':>9s} {'mapped MiB':>10s}"]
    rows += [
        f"{p.name[:44]:44s} {p.seconds:8.1f} {p.cpu_seconds:8.1f} {p.peak_anonymous_mib:9.0f} "
        f"{p.peak_mapped_mib:10.0f}"
        for p in parts
    ]
    return "\n".join(rows)


def _written(folder: Path) -> dict[str, int]:
    state = folder / "state"
    return {
        f"{name}_bytes": sum(f.stat().st_size for f in (state / name).rglob("*") if f.is_file())
        for name in ("work", "releases")
    }


def main() -> None:
    """Generate, build, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--edges", type=int, default=0)
    parser.add_argument("--interactions", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--memory-gib",
        type=float,
        default=0.0,
        help="build.memory_gib, and where the build is stopped; 0: the default, and no stop",
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        build_here(given.folder, given.memory_gib)
        return
    size = [f"--{name}={getattr(given, name)}" for name in ("users", "edges", "interactions")]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, HERE / "generate.py", *size, f"--folder={given.folder}"], check=True
    )
    generated = time.perf_counter() - began
    parts, last, status = watched(
        [
            sys.executable,
            __file__,
            "--child",
            *size,
            f"--folder={given.folder}",
            f"--memory-gib={given.memory_gib}",
        ],
        given.memory_gib * 1024,
    )
    print(_table(parts))
    total = sum(part.seconds for part in parts)
    peak = max(part.peak_anonymous_mib for part in parts)
    print(f"total {total:.0f} s, most anonymous memory {peak:.0f} MiB; exit {status}: {last}")
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "users": given.users,
        "edges": given.edges,
        "interactions": given.interactions,
        "memory_gib": given.memory_gib,
        "generate_seconds": generated,
        "exit": status,
        "seconds": total,
        "peak_anonymous_mib": peak,
        **_written(given.folder),
        "parts": [asdict(part) for part in parts],
    }
    given.results.mkdir(parents=True, exist_ok=True)
    name = f"{time.strftime('%Y-%m-%d')}-{given.users}x{given.edges or given.interactions}.json"
    (given.results / name).write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
