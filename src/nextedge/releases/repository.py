"""The releases of a state folder: publish, list, promote, roll back, verify, prune.

A release is a directory that never changes once it has its name. ``CURRENT`` is one small
file that names the served one and is replaced atomically; ``HISTORY`` keeps what was served.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nextedge.config import Config
from nextedge.errors import InputError, NoReleaseError, ReleaseError, UnknownReleaseError, nearest
from nextedge.storage import writing

FORMAT = 2
MANIFEST = "manifest.json"
COSTS = "build.json"
"""What every step cost that made the release."""
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Release:
    """One release on disk, and its manifest."""

    id: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def surfaces(self) -> list[str]:
        """Names of the surfaces that it serves."""
        return list(self.manifest["surfaces"])

    def costs(self) -> list[dict[str, Any]]:
        """What each step took that made it, in order; nothing where that was not kept."""
        path = self.path / COSTS
        steps: list[dict[str, Any]] = json.loads(path.read_text())["steps"] if path.exists() else []
        return steps


@dataclass(frozen=True)
class Trial:
    """A release beside the served one, for a share of the users."""

    name: str
    release: str
    share: float


class Releases:
    """The releases under ``<state>/releases``."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.directory = state / "releases"

    def all(self) -> list[Release]:
        """All whole releases, oldest first."""
        found = sorted(self.directory.glob(f"*/{MANIFEST}")) if self.directory.exists() else []
        return [self._open(path.parent) for path in found if not path.parent.name.startswith(".")]

    def get(self, release_id: str) -> Release:
        """A release by its id."""
        path = self.directory / release_id
        if not (path / MANIFEST).exists():
            names = [release.id for release in self.all()]
            raise UnknownReleaseError(f"no release {release_id!r}; {nearest(release_id, names)}")
        return self._open(path)

    def current_id(self) -> str | None:
        """Id of the served release, or None."""
        try:
            return (self.directory / "CURRENT").read_text().strip() or None
        except FileNotFoundError:
            return None

    def current(self) -> tuple[Release, list[str]]:
        """The served release, verified, and why others that should be served are not.

        A release that fails verification is refused, and the one served before it is used.

        Raises:
            NoReleaseError: nothing was promoted yet.
            ReleaseError: no release of the history passes verification.
        """
        faults: list[str] = []
        for release_id in dict.fromkeys([self.current_id(), *reversed(self._history())]):
            if release_id is None:
                continue
            try:
                release = self.get(release_id)
                self.verify(release)
                return release, faults
            except ReleaseError as error:
                faults.append(f"refused: {error}")
        if faults:
            raise ReleaseError("\n".join(faults))
        raise NoReleaseError(f"{self.state}: no release yet; run: nextedge build")

    def _open(self, path: Path) -> Release:
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ReleaseError(f"{path / MANIFEST}: cannot be read: {error}") from None
        if manifest.get("format") != FORMAT:
            raise ReleaseError(
                f"{path}: release format {manifest.get('format')}; this version reads {FORMAT}: "
                f"build again with it"
            )
        return Release(path.name, path, manifest)

    def verify(self, release: Release, below: Collection[str] | None = None) -> None:
        """Check files against their hashes in the manifest.

        Args:
            below: only the files of these folders of the release; None = all.

        Raises:
            ReleaseError: a file is missing or was altered; names it.
        """
        for name, expected in release.manifest["files"].items():
            if below is not None and str(Path(name).parent) not in below:
                continue
            path = release.path / name
            if not path.is_file():
                raise ReleaseError(f"release {release.id}: the file {name} is missing")
            if _hash(path) != expected:
                raise ReleaseError(f"release {release.id}: the file {name} was altered")

    def publish(
        self, config: Config, surfaces: tuple[str, ...], parts: Mapping[str, Path], *, promote: bool
    ) -> str:
        """Put the parts into a new release and, when asked, serve it from now on.

        Raises:
            StorageError: the disk is full; nothing is left behind, and what was served stays.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        release_id = self._new_id()
        partial = self.directory / f".{release_id}.{os.getpid()}"
        for left in self.directory.glob(".*.*"):  # by builds that were killed; one runs at a time
            shutil.rmtree(left, ignore_errors=True)
        try:
            with writing(partial):
                for place, source in parts.items():
                    _copy(source, partial / place)
                manifest = self._manifest(config, surfaces, partial)
                (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, default=str))
                os.replace(partial, self.directory / release_id)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if promote:
            self.promote(release_id)
        return release_id

    def _new_id(self) -> str:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        number = 0
        while (self.directory / (name := f"{stamp}{f'-{number}' if number else ''}")).exists():
            number += 1
        return name

    def _manifest(self, config: Config, surfaces: tuple[str, ...], path: Path) -> dict[str, Any]:
        packages = ("nextedge", "numpy", "numba", "lightgbm", "pyarrow", "duckdb")
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return {
            "format": FORMAT,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "tenant": config.tenant,
            "surfaces": list(surfaces),
            "config": config.model_dump(mode="json", exclude={"base"}),
            "versions": {name: version(name) for name in packages},
            "metrics": {name: _headline(path / "surfaces" / name) for name in surfaces},
            "files": {str(file.relative_to(path)): _hash(file) for file in files},
        }

    def seal(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Write the manifest of files that were changed before they have a release's name."""
        files = [f for f in sorted(path.rglob("*")) if f.is_file() and f.name != MANIFEST]
        hashes = {str(file.relative_to(path)): _hash(file) for file in files}
        text = json.dumps({**manifest, "files": hashes}, indent=1, default=str)
        (path / MANIFEST).write_text(text)

    def succeed(self, old: str, new: str) -> None:
        """Let one release stand where another stood, served or in the history."""
        history = self._history()
        if old in history:
            self._replace("HISTORY", "\n".join(new if n == old else n for n in history) + "\n")
        if self.current_id() == old:
            self._replace("CURRENT", new)

    def promote(self, release_id: str) -> None:
        """Serve a release from now on; one atomic swap.

        Raises:
            ReleaseError: there is no such release, or a file of it was altered.
        """
        self.verify(self.get(release_id))
        history = [name for name in self._history() if name != release_id]
        self._replace("HISTORY", "\n".join([*history, release_id][-100:]) + "\n")
        self._replace("CURRENT", release_id)

    def rollback(self) -> str:
        """Serve what was served before; returns its id."""
        current = self.current_id()
        earlier = [name for name in self._history() if name != current]
        earlier = [name for name in earlier if (self.directory / name / MANIFEST).exists()]
        if not earlier:
            raise ReleaseError("nothing to roll back to: no other release was served before")
        self.verify(self.get(earlier[-1]))
        self._replace("HISTORY", "\n".join(earlier) + "\n")
        self._replace("CURRENT", earlier[-1])
        return earlier[-1]

    def prune(self, keep: int = 3) -> list[str]:
        """Delete all but the newest ``keep`` releases and the served one; returns the deleted."""
        names = [release.id for release in self.all()]
        doomed = [name for name in names[: len(names) - keep] if name not in self.in_use()]
        for name in doomed:
            shutil.rmtree(self.directory / name)
        return doomed

    def trial(self) -> Trial | None:
        """The trial that runs, or None."""
        try:
            return Trial(**json.loads((self.directory / "TRIAL").read_text()))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            raise ReleaseError(f"{self.directory / 'TRIAL'}: cannot be read: {error}") from None

    def in_use(self) -> set[str]:
        """Ids of the releases that answer somebody."""
        trial = self.trial()
        return {name for name in (self.current_id(), trial and trial.release) if name}

    def start_trial(self, release_id: str, share: float, name: str | None = None) -> Trial:
        """Let a release answer a share of the users, beside the served one.

        Raises:
            InputError: the share is not between 0 and 1.
            ReleaseError: there is no such release, or a file of it was altered.
        """
        if not 0 < share < 1:
            raise InputError(f"share = {share}: expected more than 0 and less than 1")
        self.verify(self.get(release_id))
        trial = Trial(name or release_id, release_id, share)
        self._replace("TRIAL", json.dumps(asdict(trial)))
        return trial

    def end_trial(self) -> None:
        """Let the served release answer everyone again."""
        (self.directory / "TRIAL").unlink(missing_ok=True)

    def _history(self) -> list[str]:
        try:
            return (self.directory / "HISTORY").read_text().split()
        except FileNotFoundError:
            return []

    def _replace(self, name: str, text: str) -> None:
        partial = self.directory / f".{name}.{os.getpid()}"
        try:
            with writing(self.directory / name), partial.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.directory / name)
        finally:
            partial.unlink(missing_ok=True)


def _headline(surface: Path) -> dict[str, Any]:
    """The main figures of a surface, for the manifest."""
    training = json.loads((surface / "training.json").read_text())
    evaluation = json.loads((surface / "evaluation.json").read_text())
    full = next((s for s in evaluation["systems"] if s["kind"] == "full_line"), None)
    metrics = {name: value["mean"] for name, value in full["metrics"].items()} if full else {}
    return {"ranker": training["model"], "split": training["split"], **metrics}


def _copy(source: Path, target: Path) -> None:
    files = [source] if source.is_file() else sorted(f for f in source.rglob("*") if f.is_file())
    for file in files:
        if file.name != "done.json":
            place = target if file == source else target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)  # no link: an altered release must not alter the work


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
