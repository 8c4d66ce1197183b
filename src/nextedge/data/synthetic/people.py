"""Users: who they are, where they work and studied, and when they joined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nextedge.data.synthetic import words

DAY = 86_400_000_000
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class People:
    """Attribute codes of N users: int64[N] each; ``joined`` in microseconds."""

    company: IntArray
    school: IntArray
    city: IntArray
    industry: IntArray
    joined: IntArray
    sociability: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.company)


def make_people(users: int, days: int, start: int, random: np.random.Generator) -> People:
    """Draw users: heavy-tailed companies, schools and cities; industry follows company."""
    companies, schools = max(8, users // 60), max(5, users // 250)
    company = _heavy(companies, users, random)
    company_city = random.integers(0, len(words.CITIES), companies)
    company_industry = random.integers(0, len(words.INDUSTRIES), companies)
    away = random.random(users) < 0.3
    city = np.where(away, _heavy(len(words.CITIES), users, random), company_city[company])
    changed = random.random(users) < 0.15
    industry = np.where(
        changed, random.integers(0, len(words.INDUSTRIES), users), company_industry[company]
    )
    school_city = random.integers(0, len(words.CITIES), schools)
    near = random.permuted(np.argsort(school_city, kind="stable"))
    school = np.where(
        random.random(users) < 0.5,
        near[(city * 7 + company) % schools],
        _heavy(schools, users, random),
    )
    joined = start + (random.beta(0.7, 1.3, users) * days * DAY).astype(np.int64)
    late = random.random(users) < 0.03
    joined[late] = start + int((days - 2) * DAY) + random.integers(0, DAY, int(late.sum()))
    sociability = random.lognormal(0.0, 0.9, users)
    return People(company, school, city, industry, joined, sociability)


def _heavy(values: int, count: int, random: np.random.Generator) -> IntArray:
    """Draw codes with Zipf-like frequencies."""
    share = 1.0 / np.arange(1, values + 1) ** 0.8
    return random.choice(values, count, p=share / share.sum()).astype(np.int64)


def people_rows(people: People, low: int, high: int, seed: int) -> pa.Table:
    """Rows of the users table for the users in [low, high)."""
    random = np.random.default_rng([seed, 1, low])
    span, industries = range(low, high), list(words.INDUSTRIES)
    titles, skills = [], []
    for user in span:
        offered = words.INDUSTRIES[industries[people.industry[user]]]
        titles.append(offered[0][int(random.integers(0, len(offered[0])))])
        known = random.choice(
            offered[1], min(len(offered[1]), 2 + int(random.integers(0, 3))), replace=False
        )
        skills.append(sorted(known.tolist()))
    cities = [words.CITIES[code] for code in people.city[low:high]]
    shift = random.normal(0, 0.15, (2, high - low))
    return pa.table({
        "user_id": [f"u{user:07d}" for user in span],
        "name": [f"{_pick(words.GIVEN, random)} {_pick(words.FAMILY, random)}" for _ in span],
        "company": [company_name(code) for code in people.company[low:high]],
        "school": [school_name(code) for code in people.school[low:high]],
        "industry": [industries[code] for code in people.industry[low:high]],
        "title": titles,
        "city": [city[0] for city in cities],
        "latitude": np.array([city[1] for city in cities]) + shift[0],
        "longitude": np.array([city[2] for city in cities]) + shift[1],
        "skills": pa.array(skills, pa.list_(pa.string())),
        "bio": [f"{title} in {city[0]}. {', '.join(known)}." for title, city, known in zip(titles, cities, skills, strict=True)],
        "created_at": pa.array(people.joined[low:high], pa.timestamp("us", "UTC")),
        "discoverable": random.random(high - low) > 0.01,
    })  # fmt: skip


def company_name(code: int) -> str:
    """An invented company."""
    return (
        f"{words.FAMILY[code % len(words.FAMILY)]} {words.COMPANIES[(code // len(words.FAMILY)) % len(words.COMPANIES)]}"
        + (
            f" {code // (len(words.FAMILY) * len(words.COMPANIES)) + 1}"
            if code >= len(words.FAMILY) * len(words.COMPANIES)
            else ""
        )
    )


def school_name(code: int) -> str:
    """An invented school."""
    city = words.CITIES[code % len(words.CITIES)][0]
    kind = words.SCHOOLS[(code // len(words.CITIES)) % len(words.SCHOOLS)]
    turn = code // (len(words.CITIES) * len(words.SCHOOLS))
    return f"{city} {kind}" + (f" {turn + 1}" if turn else "")


def _pick(choices: list[str], random: np.random.Generator) -> str:
    return choices[int(random.integers(0, len(choices)))]
