"""Users: city, company, school, skills, taste, and time of joining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextedge.data.synthetic.config import START, SyntheticConfig
from nextedge.data.synthetic.draw import Doubles, event_times, normal, pick, uniform, zipf
from nextedge.data.synthetic.words import CITIES, GENERAL_SKILLS, INDUSTRIES
from nextedge.types import MICROSECONDS_PER_DAY, BoolArray, IndexArray, IntArray

SKILLS: tuple[str, ...] = GENERAL_SKILLS + tuple(
    skill for industry in INDUSTRIES for skill in industry.skills
)
SKILLS_EACH = 5
COHORTS = 15
"""Graduation years of a school."""
FACTORS = 8
"""Dimensions of taste."""

_FOUNDING_DAYS = 180
_ELSEWHERE = 0.25
_OTHER_INDUSTRY = 0.1


@dataclass(frozen=True, eq=False)
class Places:
    """Companies and schools: C companies and S schools, largest first."""

    company_industry: IntArray
    company_city: IntArray
    school_city: IntArray
    company_weight: Doubles
    school_weight: Doubles


@dataclass(frozen=True, eq=False)
class People:
    """N users in the order in which they joined; positions are rows of these arrays.

    Attributes:
        created: int64[N], µs UTC, ascending.
        company, school, city, industry, title, cohort: int32[N] codes.
        skill: int32[N, SKILLS_EACH], codes of SKILLS, ascending, −1 where fewer.
        skill_bits: uint64[N, 2], the same as a set of bits.
        activity: float32[N], weight of a user as an actor (mean about 1).
        discoverable: whether the user may be a candidate.
        logged: whether the impressions table has the lists of the user.
        active: number of users, from the first, who may have connections; the rest joined too late.
    """

    places: Places
    created: IntArray
    company: IndexArray
    school: IndexArray
    city: IndexArray
    industry: IndexArray
    title: IndexArray
    cohort: IndexArray
    skill: IndexArray
    skill_bits: npt.NDArray[np.uint64]
    activity: npt.NDArray[np.float32]
    discoverable: BoolArray
    logged: BoolArray
    active: int

    def __len__(self) -> int:
        return len(self.created)


def make_people(config: SyntheticConfig) -> People:
    """Draw all users. Memory: about 120 bytes each."""
    seed, count = config.seed, config.users
    places = _make_places(config)
    company = pick(seed, "company", count, places.company_weight)
    city = _cities(config, places.company_city[company])
    school = _schools(config, places, city)
    industry = _mostly(
        seed, "industry", places.company_industry[company], len(INDUSTRIES), _OTHER_INDUSTRY
    )
    title = pick(seed, "title", count, zipf(4, 0.6))
    skill, bits = _skills(config, industry, title)
    spread = config.activity_spread
    # Minus half the variance, so that the mean is 1 for every spread.
    activity = np.exp(spread * normal(seed, "activity", count) - spread**2 / 2)
    late = min(int(np.ceil(config.late_joiner_share * count)), count - 2)  # two have to connect
    return People(
        places=places,
        created=_joined(config),
        company=company.astype(np.int32),
        school=school.astype(np.int32),
        city=city.astype(np.int32),
        industry=industry.astype(np.int32),
        title=title.astype(np.int32),
        cohort=pick(seed, "cohort", count, np.ones(COHORTS)).astype(np.int32),
        skill=skill,
        skill_bits=bits,
        activity=activity.astype(np.float32),
        discoverable=uniform(seed, "discoverable", count) >= config.opt_out_share,
        logged=uniform(seed, "logged", count) < config.logged_share,
        active=count - late,
    )


def _make_places(config: SyntheticConfig) -> Places:
    seed = config.seed
    companies = max(4, config.users // 40)
    schools = int(np.clip(config.users // 150, 4, 2_000))
    return Places(
        company_industry=pick(seed, "company.industry", companies, zipf(len(INDUSTRIES), 0.5)),
        company_city=pick(seed, "company.city", companies, zipf(len(CITIES), 0.8, 2.0)),
        school_city=pick(seed, "school.city", schools, zipf(len(CITIES), 0.6, 2.0)),
        company_weight=zipf(companies, 1.0, 4.0),
        school_weight=zipf(schools, 0.8, 3.0),
    )


def _joined(config: SyntheticConfig) -> IntArray:
    """Times of joining: founders before the history, then ever more users."""
    steps = 64
    founding = START - _FOUNDING_DAYS * MICROSECONDS_PER_DAY
    later = np.linspace(0.0, 1.0, steps + 1)
    grid = np.concatenate(([founding], START + (later * (config.end - START)).astype(np.int64)))
    founders = config.founders_share
    mass = np.concatenate(([0.0], founders + (1 - founders) * (0.65 * later + 0.35 * later**2)))
    return event_times(config.seed, "joined", config.users, 0, config.users, grid, mass)


def _mostly(seed: int, stream: str, usual: IntArray, kinds: int, share: float) -> IntArray:
    """``usual``, or any of ``kinds`` for a share of the rows."""
    other = pick(seed, stream + ".other", len(usual), np.ones(kinds))
    return np.where(uniform(seed, stream + ".odd", len(usual)) < share, other, usual)


def _cities(config: SyntheticConfig, headquarters: IntArray) -> IntArray:
    """City of each user: that of the company for three in four."""
    elsewhere = pick(config.seed, "city", config.users, zipf(len(CITIES), 0.8, 2.0))
    away = uniform(config.seed, "city.away", config.users) < _ELSEWHERE
    return np.where(away, elsewhere, headquarters)


def _schools(config: SyntheticConfig, places: Places, city: IntArray) -> IntArray:
    """School of each user: for half of them one in their city, if it has a school."""
    seed, count = config.seed, len(city)
    school = pick(seed, "school", count, places.school_weight)
    near = uniform(seed, "school.near", count) < 0.5
    share = uniform(seed, "school.local", count)
    for code in range(len(CITIES)):
        local = np.flatnonzero(places.school_city == code)
        rows = np.flatnonzero(near & (city == code))
        if len(local) and len(rows):
            cumulative = np.cumsum(places.school_weight[local])
            drawn = np.searchsorted(cumulative, share[rows] * cumulative[-1], side="right")
            school[rows] = local[np.minimum(drawn, len(local) - 1)]
    return school


def _skills(
    config: SyntheticConfig, industry: IntArray, title: IntArray
) -> tuple[IndexArray, npt.NDArray[np.uint64]]:
    """Up to five skills: those of the industry, shifted by the title, and a general one."""
    count = len(industry)
    sizes = np.array([len(item.skills) for item in INDUSTRIES])
    first = len(GENERAL_SKILLS) + np.concatenate(([0], np.cumsum(sizes)[:-1]))
    skill = np.full((count, SKILLS_EACH), -1, np.int64)
    for slot in range(SKILLS_EACH):
        rank = pick(config.seed, f"skill.{slot}", count, zipf(6, 0.9))
        skill[:, slot] = first[industry] + (rank + 2 * title) % sizes[industry]
    general = uniform(config.seed, "skill.general", count) * len(GENERAL_SKILLS)
    skill[:, SKILLS_EACH - 1] = general.astype(np.int64)
    skill.sort(axis=1)
    skill[:, 1:][skill[:, 1:] == skill[:, :-1]] = -1
    bits = np.zeros((count, 2), np.uint64)
    for slot in range(SKILLS_EACH):
        code = skill[:, slot]
        flag = np.left_shift(np.uint64(1), (np.maximum(code, 0) % 64).astype(np.uint64))
        for half in range(2):
            bits[:, half] |= np.where((code >= 0) & (code // 64 == half), flag, np.uint64(0))
    return skill.astype(np.int32), bits


def tastes(people: People, config: SyntheticConfig) -> npt.NDArray[np.float32]:
    """float32[N, FACTORS]: latent taste from industry, skills and the person, before friends."""
    seed = config.seed
    of_industry = factor_vectors(seed, "industry", len(INDUSTRIES))
    # The last row, which code −1 takes, adds nothing.
    of_skill = np.vstack((factor_vectors(seed, "skill", len(SKILLS)), np.zeros((1, FACTORS))))
    taste = 0.6 * of_industry[people.industry]
    for slot in range(SKILLS_EACH):
        taste += 0.3 * of_skill[people.skill[:, slot]]
    for factor in range(FACTORS):
        taste[:, factor] += 0.6 * normal(seed, f"taste.{factor}", len(people))
    return taste.astype(np.float32)


def factor_vectors(seed: int, stream: str, count: int) -> Doubles:
    """float64[count, FACTORS], standard normal, the same for every caller of the stream."""
    return normal(seed, f"factors.{stream}", count * FACTORS).reshape(count, FACTORS)
