"""A release and its manifest: configuration, versions, metrics and the hash of every file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nextedge.config import Config
from nextedge.errors import ReleaseError

FORMAT = 2
MANIFEST = "manifest.json"
COSTS = "build.json"
"""The time and memory of every step of the build."""
_PACKAGES = ("nextedge", "numpy", "numba", "lightgbm", "pyarrow", "duckdb")


@dataclass(frozen=True)
class Release:
    """One release on disk, and its manifest."""

    id: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def surfaces(self) -> list[str]:
        """Names of the surfaces of the release."""
        return list(self.manifest["surfaces"])

    def costs(self) -> list[dict[str, Any]]:
        """Time and memory of each build step, in order; empty without such a file."""
        path = self.path / COSTS
        steps: list[dict[str, Any]] = json.loads(path.read_text())["steps"] if path.exists() else []
        return steps


def new_manifest(config: Config, surfaces: tuple[str, ...], path: Path) -> dict[str, Any]:
    """The manifest of the files of a new release, without their hashes."""
    return {
        "format": FORMAT,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tenant": config.tenant,
        "surfaces": list(surfaces),
        "config": config.model_dump(mode="json", exclude={"base"}),
        "versions": {name: version(name) for name in _PACKAGES},
        "metrics": {name: _headline(path / "surfaces" / name) for name in surfaces},
    }


def seal(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a partial release, with the hash of each file."""
    files = [f for f in sorted(path.rglob("*")) if f.is_file() and f.name != MANIFEST]
    hashes = {str(file.relative_to(path)): file_hash(file) for file in files}
    text = json.dumps({**manifest, "files": hashes}, indent=1, default=str)
    (path / MANIFEST).write_text(text)


def parsed(path: Path, manifest: bytes) -> Release:
    """Parse the manifest of a release folder.

    Raises:
        ReleaseError: the manifest is broken, or of another format.
    """
    try:
        about: dict[str, Any] = json.loads(manifest)
    except ValueError as error:
        raise ReleaseError(f"{path / MANIFEST}: cannot be read: {error}") from None
    if about.get("format") != FORMAT:
        raise ReleaseError(
            f"{path}: release format {about.get('format')}; this version reads {FORMAT}: "
            f"build again with it"
        )
    return Release(path.name, path, about)


def _headline(surface: Path) -> dict[str, Any]:
    """The ranker, the split and the metrics of a surface."""
    training = json.loads((surface / "training.json").read_text())
    evaluation = json.loads((surface / "evaluation.json").read_text())
    full = next((s for s in evaluation["systems"] if s["kind"] == "full_line"), None)
    metrics = {name: value["mean"] for name, value in full["metrics"].items()} if full else {}
    return {"ranker": training["model"], "split": training["split"], **metrics}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
