"""The measured cost laws: ``coefficients.json`` of the package, or a file of your own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from nextedge.errors import InputError

FORMAT = 2
FILE = "coefficients.json"


@dataclass(frozen=True)
class Law:
    """The cost of one part of the work: a + b · driver^p.

    Attributes:
        driver: name of the quantity that the part grows with.
        largest: largest driver that was measured.
        parallel: share of the part that ran on all cores.
    """

    driver: str
    a: float
    b: float
    p: float
    largest: float
    parallel: float = 0.0

    def at(self, driver: float) -> float:
        """The cost at a driver."""
        return self.a + (self.b * driver**self.p if driver > 0 else 0.0)


@dataclass(frozen=True)
class Coefficients:
    """Laws by name, and the machine, date and sizes of their measurement."""

    laws: Mapping[str, Law]
    measured: Mapping[str, Any]

    def law(self, name: str) -> Law:
        """A law by name.

        Raises:
            InputError: the file lacks it.
        """
        if name in self.laws:
            return self.laws[name]
        raise InputError(
            f"coefficients have no law {name!r}: measure them again with "
            "'python bench/plan/measure.py' and 'python bench/plan/check.py'"
        )


def load_coefficients(path: Path | None = None) -> Coefficients:
    """Read the laws of a file, or the shipped ones.

    Raises:
        InputError: the file is missing, or no valid file of coefficients.
    """
    source = path or files(__package__).joinpath(FILE)
    try:
        raw = json.loads(source.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise InputError(
                f"--coefficients {source}: format {raw['format']}, expected {FORMAT}: fit it again "
                "with 'python bench/plan/check.py'"
            )
        laws = {name: Law(**values) for name, values in raw["laws"].items()}
        return Coefficients(laws, raw["measured"])
    except FileNotFoundError:
        raise InputError(f"--coefficients {source}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"--coefficients {source}: not a file of coefficients; 'python bench/plan/check.py' "
            "writes one"
        ) from None
