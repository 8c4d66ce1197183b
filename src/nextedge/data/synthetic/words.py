"""Words for people and items, read from ``people.toml`` and ``items.toml`` beside this file.

Names are drawn word by word from common first and family names of a culture, so that people
are plausible and invented. Scripts are mixed, as in real tenants.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Culture:
    """First and family names of one culture; ``family_first`` puts the family name first."""

    first: tuple[str, ...]
    family: tuple[str, ...]
    joiner: str = " "
    family_first: bool = False


@dataclass(frozen=True, slots=True)
class Industry:
    """Departments (``titles``), skills and company names of an industry."""

    name: str
    titles: tuple[str, ...]
    skills: tuple[str, ...]
    companies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Category:
    """Words of a category, its median price, and the industries that buy from it."""

    name: str
    nouns: tuple[str, ...]
    qualities: tuple[str, ...]
    uses: tuple[str, ...]
    price: float
    industries: tuple[str, ...]


def _read(name: str) -> dict[str, Any]:
    """A file of words, its lists as tuples."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return {key: _frozen(value) for key, value in tomllib.loads(text).items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value


_PEOPLE, _ITEMS = _read("people.toml"), _read("items.toml")
CULTURES: dict[str, Culture] = {
    name: Culture(**fields) for name, fields in _PEOPLE["cultures"].items()
}
CITIES: tuple[tuple[str, float, float, str], ...] = _PEOPLE["cities"]
INDUSTRIES = tuple(Industry(**fields) for fields in _PEOPLE["industries"])
GENERAL_SKILLS: tuple[str, ...] = _PEOPLE["general_skills"]
COMPANY_HEADS: tuple[str, ...] = _PEOPLE["company_heads"]
SCHOOL_FORMS: tuple[str, ...] = _PEOPLE["school_forms"]
LEVELS: tuple[str, ...] = _PEOPLE["levels"]
INTERESTS: tuple[str, ...] = _PEOPLE["interests"]
CATEGORIES = tuple(Category(**fields) for fields in _ITEMS["categories"])
SERIES: tuple[str, ...] = _ITEMS["series"]
REGIONS: tuple[str, ...] = _ITEMS["regions"]
