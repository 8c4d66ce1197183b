"""A build that is called step by step: every call goes on with the inputs of the first.

Events arrive at any time, and files of tables are replaced; a build takes what is there when it
begins. Where a scheduler calls each step on its own, or a killed build again, its calls have the
name of the run in common, and with it the tables that the first of them made.
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
    """What is kept of one run, as ``runs/<name>.json`` in the state folder.

    Attributes:
        inputs: fingerprint of the inputs that it began with, None before it has begun.

    Raises:
        InputError: the name is empty, or too long for a file.
    """

    def __init__(self, state: Path, name: str) -> None:
        file = quote(name, safe="") + ".json"
        if not name or len(file) > _LONGEST:
            raise InputError(f"--run {name!r}: expected 1 to {_LONGEST - 5} letters and digits")
        self.path = state / FOLDER / file
        self._noted = self._read()
        self.inputs: str | None = self._noted.get("inputs")

    def begin(self, inputs: str) -> None:
        """Note with which inputs the run begins, or begins again."""
        self.inputs = inputs
        self._write({"inputs": inputs})

    def finish(self, releases: Releases, release: str) -> None:
        """Note the release, and forget runs of which nothing is left."""
        self._write({"inputs": self.inputs or "", "release": release})
        kept = {each.id for each in releases.all()}
        for path in self.path.parent.glob("*.json"):
            if NamedRun._of(path).get("release") not in kept:
                path.unlink(missing_ok=True)

    def published(
        self, releases: Releases, config: Config, surfaces: tuple[str, ...]
    ) -> str | None:
        """The release that the run has published with these settings, None where there is none."""
        found = [each for each in releases.all() if each.id == self._noted.get("release")]
        settings = config.model_dump(mode="json", exclude={"base"})
        for release in found:
            if release.surfaces == list(surfaces) and release.manifest["config"] == settings:
                return release.id
        return None

    def _read(self) -> Mapping[str, str]:
        return NamedRun._of(self.path)

    @staticmethod
    def _of(path: Path) -> Mapping[str, str]:
        """What is noted; nothing where the file is not there or was cut."""
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
            os.replace(partial, self.path)
