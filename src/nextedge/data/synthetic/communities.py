"""Circles in which people meet: teams, classes, trades, companies, schools, cities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nextedge.data.synthetic.config import SyntheticConfig
from nextedge.data.synthetic.draw import Doubles, uniform
from nextedge.data.synthetic.people import COHORTS, People
from nextedge.data.synthetic.words import INDUSTRIES
from nextedge.types import IndexArray, IntArray

KIND_WEIGHTS: dict[str, float] = {
    "team": 0.36,
    "class": 0.22,
    "trade": 0.16,
    "company": 0.07,
    "school": 0.06,
    "city": 0.07,
    "industry": 0.06,
}
"""Share of the meetings in each kind of circle."""

_RECEPTIVENESS = 0.85


class Communities(NamedTuple):
    """N users in K kinds of circle; C circles over all kinds (a tuple, for the kernels).

    Attributes:
        circle: int32[K, N], the circle of each user, numbered over all kinds.
        start: int64[C + 1], first member of each circle in ``members``.
        members: int32[K · N], each circle's users in the order in which they joined.
        cumulative: float64[K · N + 1], cumulative weight before each entry of ``members``.
        kinds: float64[K], cumulative weights of the kinds.
    """

    circle: npt.NDArray[np.int32]
    start: IntArray
    members: IndexArray
    cumulative: Doubles
    kinds: Doubles


def make_communities(people: People, config: SyntheticConfig) -> Communities:
    """Assign each user to one circle of each kind. Memory: about 120 bytes a user."""
    keys = _keys(people, config)
    count = len(people)
    circle = np.empty((len(keys), count), np.int32)
    members = np.empty(len(keys) * count, np.int32)
    starts: list[IntArray] = []
    circles = 0
    for kind, name in enumerate(KIND_WEIGHTS):
        _, code, size = np.unique(keys[name], return_inverse=True, return_counts=True)
        circle[kind] = code + circles
        # Stable: the users who have joined so far are the first of each circle.
        members[kind * count : (kind + 1) * count] = np.argsort(code, kind="stable")
        starts.append(kind * count + np.concatenate(([0], np.cumsum(size)[:-1])))
        circles += len(size)
    weight = people.activity.astype(np.float64) ** _RECEPTIVENESS
    return Communities(
        circle=circle,
        start=np.concatenate([*starts, [len(members)]]).astype(np.int64),
        members=members,
        cumulative=np.concatenate(([0.0], np.cumsum(weight[members]))),
        kinds=np.cumsum(list(KIND_WEIGHTS.values())),
    )


def _keys(people: People, config: SyntheticConfig) -> dict[str, IntArray]:
    company, school = people.company.astype(np.int64), people.school.astype(np.int64)
    city, industry = people.city.astype(np.int64), people.industry.astype(np.int64)
    department = company * 4 + people.title
    year = school * COHORTS + people.cohort
    return {
        "team": _split(config, "team", department),
        "class": _split(config, "class", year),
        "trade": city * len(INDUSTRIES) + industry,
        "company": company,
        "school": school,
        "city": city,
        "industry": industry,
    }


def _split(config: SyntheticConfig, stream: str, group: IntArray) -> IntArray:
    """Cut groups at random into parts of about ``team_size``; returns the key of each user's part."""
    parts = np.ceil(np.bincount(group) / config.team_size).astype(np.int64)
    lot = (uniform(config.seed, stream, len(group)) * parts[group]).astype(np.int64)
    return group * np.int64(int(parts.max()) + 1) + lot
