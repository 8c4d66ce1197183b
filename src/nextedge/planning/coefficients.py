"""The measured laws: ``coefficients.json`` of the package, or a file of one's own.

``python bench/plan/measure.py`` measures, ``python bench/plan/check.py`` fits and checks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from nextedge.errors import InputError
from nextedge.planning.laws import Law

FORMAT = 1
FILE = "coefficients.json"


@dataclass(frozen=True)
class Coefficients:
    """Laws by name, and where they were measured.

    Attributes:
        laws: what each name is of, and its driver, stand in ``planning/drivers.py``.
        measured: machine, cores, date, load, sizes.
    """

    laws: Mapping[str, Law]
    measured: Mapping[str, Any]

    @property
    def cores(self) -> float:
        """Cores of the machine that was measured."""
        return float(self.measured.get("cores", 1))

    def law(self, name: str) -> Law:
        """A law by name.

        Raises:
            InputError: it was not measured.
        """
        try:
            return self.laws[name]
        except KeyError:
            raise InputError(
                f"coefficients have no law {name!r}: measure them again with "
                "'python bench/plan/measure.py' and 'python bench/plan/check.py'"
            ) from None

    def threads(self, name: str) -> float:
        """Cores that a part of a build kept busy, of those there were; 1 where that is not known."""
        cpu, wall = self.laws.get(f"cpu {name}"), self.laws.get(f"wall {name}")
        if cpu is None or wall is None:
            return 1.0
        return min(max(cpu.at(cpu.largest) / max(wall.at(wall.largest), 1e-9), 1.0), self.cores)

    def save(self, path: Path) -> None:
        """Write the file, one law a line."""
        lines = [
            f" {json.dumps(name)}: {json.dumps(_rounded(law))}"
            for name, law in sorted(self.laws.items())
        ]
        text = (
            f'{{"format": {FORMAT},\n"measured": {json.dumps(dict(self.measured), indent=1)},\n'
            '"laws": {\n' + ",\n".join(lines) + "\n}}\n"
        )
        path.write_text(text, encoding="utf-8")


def load_coefficients(path: Path | None = None) -> Coefficients:
    """Read the laws; None reads those that were shipped.

    Raises:
        InputError: the file is missing, no JSON, of another format, or has a value that is none.
    """
    where = str(path) if path is not None else FILE
    try:
        if path is not None:
            text = path.read_text(encoding="utf-8")
        else:
            text = files(__package__).joinpath(FILE).read_text(encoding="utf-8")
        raw = json.loads(text)
        if raw["format"] != FORMAT:
            raise InputError(
                f"{where}: format {raw['format']!r}, expected {FORMAT}: fit it again with "
                "'python bench/plan/check.py'"
            )
        laws = {name: Law(**values) for name, values in raw["laws"].items()}
        return Coefficients(laws, raw["measured"])
    except FileNotFoundError:
        raise InputError(f"--coefficients {where}: no such file") from None
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"--coefficients {where}: not a file of coefficients; 'python bench/plan/check.py' "
            "writes one"
        ) from None


def _rounded(law: Law) -> dict[str, float]:
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in asdict(law).items()
    }
