"""A build in several calls: every call of a named run continues with the inputs of the first.

Events arrive and tables are replaced at any time. Where a scheduler calls each step by itself, or a
killed build again, the name of the run ties its calls to the tables that the first of them made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from nextedge.config import Config
from nextedge.errors import InputError
from nextedge.releases.repository import Releases
from nextedge.storage.files import writing

FOLDER = "runs"
_LONGEST = 200


class NamedRun:
    """Inputs and release of one run, as ``runs/<name>.json`` in the state folder.

    Attributes:
        inputs: fingerprint of the first call's inputs, None before it.

    Raises:
        InputError: the name is empty, or too long for a file.
    """

    def __init__(self, state: Path, name: str) -> None:
        file = quote(name, safe="") + ".json"  # a slash must not leave the folder
        if not name or len(file) > _LONGEST:
            raise InputError(f"--run {name!r}: expected 1 to {_LONGEST - 5} letters and digits")
        self.path = state / FOLDER / file
        self._noted = self._of(self.path)
        self.inputs: str | None = self._noted.get("inputs")

    def begin(self, inputs: str) -> None:
        """Note the inputs with which the run begins, or begins again."""
        self.inputs = inputs
        self._write({"inputs": inputs})

    def finish(self, releases: Releases, release: str) -> None:
        """Note the release, and delete the notes of runs without a release."""
        self._write({"inputs": self.inputs or "", "release": release})
        existing = {release.id for release in releases.all()}
        for path in self.path.parent.glob("*.json"):
            if self._of(path).get("release") not in existing:
                path.unlink(missing_ok=True)

    def published(
        self, releases: Releases, config: Config, surfaces: tuple[str, ...]
    ) -> str | None:
        """The release that the run published with these settings, or None."""
        settings = config.model_dump(mode="json", exclude={"base"})
        for release in releases.all():
            same = release.surfaces == list(surfaces) and release.manifest["config"] == settings
            if same and release.id == self._noted.get("release"):
                return release.id
        return None

    @staticmethod
    def _of(path: Path) -> Mapping[str, str]:
        """The note in a file; empty where it is missing or cut."""
        try:
            noted = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def _write(self, noted: Mapping[str, str]) -> None:
        self._noted = noted
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(noted))
            # A killed build must not leave half a note.
            os.replace(partial, self.path)
