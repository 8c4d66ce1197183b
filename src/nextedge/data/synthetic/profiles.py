"""The users table: words for the codes of people, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge.data.synthetic.config import SyntheticConfig
from nextedge.data.synthetic.draw import normal, uniform
from nextedge.data.synthetic.people import SKILLS, People
from nextedge.data.synthetic.words import (
    CITIES,
    COMPANY_HEADS,
    CULTURES,
    INDUSTRIES,
    INTERESTS,
    LEVELS,
    SCHOOL_FORMS,
)
from nextedge.data.synthetic.writer import TIMESTAMP, timestamps
from nextedge.types import IntArray

USERS_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("name", pa.string()),
        ("company", pa.string()),
        ("school", pa.string()),
        ("industry", pa.string()),
        ("title", pa.string()),
        ("city", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("skills", pa.list_(pa.string())),
        ("bio", pa.string()),
        ("created_at", TIMESTAMP),
        ("discoverable", pa.bool_()),
    ]
)

_COHORT_START = 2008
_SPREAD_DEGREES = 0.12
_LOCAL_NAME = 0.7
_EMPTY_BIO = 0.15
_CHUNK = 100_000


def user_ids(count: int) -> pa.Array:
    """string[count]: ``u0000001`` and so on, in the order of joining."""
    return identifiers("u", count)


def identifiers(letter: str, count: int) -> pa.Array:
    """string[count]: a letter and the number of the row from 1, with leading zeros."""
    width = max(6, len(str(count)))
    digits = pc.utf8_lpad(pa.array(np.arange(1, count + 1)).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(letter, digits, "")


def user_tables(people: People, config: SyntheticConfig) -> Iterator[pa.Table]:
    """The users in chunks of rows."""
    ids, companies, schools = user_ids(len(people)), company_names(people), school_names(people)
    for first in range(0, len(people), _CHUNK):
        rows = slice(first, min(first + _CHUNK, len(people)))
        yield _table(people, config, rows, ids, companies, schools)


def _table(
    people: People,
    config: SyntheticConfig,
    rows: slice,
    ids: pa.Array,
    companies: list[str],
    schools: list[str],
) -> pa.Table:
    first, count = rows.start, rows.stop - rows.start
    seed, city = config.seed, people.city[rows]
    center = np.array([(latitude, longitude) for _, latitude, longitude, _ in CITIES])[city]
    # A degree of longitude is shorter away from the equator.
    stretch = 1.0 / np.cos(np.radians(center[:, 0]))
    north = _SPREAD_DEGREES * normal(seed, "latitude", count, first)
    east = _SPREAD_DEGREES * normal(seed, "longitude", count, first) * stretch
    columns = {
        "user_id": ids[first : rows.stop],
        "name": _names(people, config, rows),
        "company": words(companies, people.company[rows]),
        "school": words(schools, people.school[rows]),
        "industry": words([item.name for item in INDUSTRIES], people.industry[rows]),
        "title": _titles(people, config, rows),
        "city": words([name for name, *_ in CITIES], city),
        "latitude": np.round(center[:, 0] + north, 5),
        "longitude": np.round(center[:, 1] + east, 5),
        "skills": _skill_lists(people, rows),
        "bio": _bios(people, config, rows, schools),
        "created_at": timestamps(people.created[rows]),
        "discoverable": people.discoverable[rows],
    }
    return pa.table(columns, schema=USERS_SCHEMA)


def words(vocabulary: Sequence[str], codes: object) -> pa.Array:
    """string[rows]: the word of each code."""
    return pa.array(list(vocabulary), pa.string()).take(pa.array(codes))


def join(*parts: object) -> pa.Array:
    """string[rows]: columns and fixed words, concatenated; null where any is null."""
    return pc.binary_join_element_wise(*parts, "")


def _draw(config: SyntheticConfig, stream: str, rows: slice, kinds: int) -> IntArray:
    share = uniform(config.seed, stream, rows.stop - rows.start, rows.start)
    return np.minimum((share * kinds).astype(np.int64), kinds - 1)


def _names(people: People, config: SyntheticConfig, rows: slice) -> pa.Array:
    """Names, mostly of the culture of the city."""
    cultures = list(CULTURES)
    local = np.array([cultures.index(culture) for *_, culture in CITIES])[people.city[rows]]
    away = uniform(config.seed, "name.away", len(local), rows.start) >= _LOCAL_NAME
    culture = np.where(away, _draw(config, "name.culture", rows, len(cultures)), local)
    names: list[str] = []  # of all cultures: a column of codes then needs one look-up
    start, total = [], []
    for item in CULTURES.values():
        start.append(len(names))
        for first in item.first:
            for family in item.family:
                pair = (family, first) if item.family_first else (first, family)
                names.append(item.joiner.join(pair))
        total.append(len(names) - start[-1])
    rank = uniform(config.seed, "name", len(local), rows.start) * np.array(total)[culture]
    return words(names, np.array(start)[culture] + rank.astype(np.int64))


def company_names(people: People) -> list[str]:
    """One distinct name for every company, largest first."""
    names = []
    for company, industry in enumerate(people.places.company_industry):
        forms = INDUSTRIES[industry].companies
        turn, head = divmod(company, len(COMPANY_HEADS))
        again, form = divmod(turn, len(forms))
        suffix = f" {again + 1}" if again else ""
        names.append(f"{COMPANY_HEADS[head]} {forms[(form + head) % len(forms)]}{suffix}")
    return _distinct(names)


def school_names(people: People) -> list[str]:
    """One distinct name for every school, largest first."""
    names = []
    for school, city in enumerate(people.places.school_city):
        names.append(SCHOOL_FORMS[school % len(SCHOOL_FORMS)].format(CITIES[city][0]))
    return _distinct(names)


def _distinct(names: list[str]) -> list[str]:
    """The names, with a number after each repeated one from the second on."""
    seen: dict[str, int] = {}
    taken = set(names)
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct = name
        while seen[name] > 1 and distinct in taken:
            distinct = f"{name} {seen[name]}"
            seen[name] += distinct in taken
        taken.add(distinct)
        out.append(distinct)
    return out


def _titles(people: People, config: SyntheticConfig, rows: slice) -> pa.Array:
    titles = [title for industry in INDUSTRIES for title in industry.titles]
    title = words(titles, people.industry[rows] * len(INDUSTRIES[0].titles) + people.title[rows])
    return join(words(LEVELS, _draw(config, "level", rows, len(LEVELS))), title)


def _skill_lists(people: People, rows: slice) -> pa.Array:
    skill = people.skill[rows]
    known = skill >= 0
    offsets = np.concatenate(([0], np.cumsum(known.sum(axis=1)))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), words(SKILLS, skill[known]))


def _bios(people: People, config: SyntheticConfig, rows: slice, schools: list[str]) -> pa.Array:
    """A sentence on the job, the class and an interest; null for some users."""
    titles = [title.lower() for industry in INDUSTRIES for title in industry.titles]
    title = words(titles, people.industry[rows] * len(INDUSTRIES[0].titles) + people.title[rows])
    last = people.skill[rows].max(axis=1)
    years = [str(_COHORT_START + cohort) for cohort in range(int(people.cohort.max()) + 1)]
    bio = join(
        words(
            ["I work as a ", "Happy to be a ", "Curious ", "By day a "],
            _draw(config, "bio.form", rows, 4),
        ),
        title,
        ", good at ",
        words(SKILLS, last),
        ". ",
        words(schools, people.school[rows]),
        ", class of ",
        words(years, people.cohort[rows]),
        ". I like ",
        words(INTERESTS, _draw(config, "bio.interest", rows, len(INTERESTS))),
        ".",
    )
    empty = uniform(config.seed, "bio.empty", len(title), rows.start) < _EMPTY_BIO
    return pc.if_else(pa.array(empty), pa.scalar(None, pa.string()), bio)
