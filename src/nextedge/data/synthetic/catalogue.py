"""Items, what users do with them, what they were shown, and whom they blocked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nextedge.data.synthetic import words
from nextedge.data.synthetic.people import DAY, People

_TASTES = 12
_REGIONS = ("EU", "US", "APAC")
IntArray = npt.NDArray[np.int64]


class Catalogue:
    """Items with latent tastes, popularity and arrival times."""

    def __init__(self, items: int, days: int, start: int, random: np.random.Generator) -> None:
        self.category = random.integers(0, len(words.CATEGORIES), items)
        self.arrived = start + (random.beta(0.8, 1.6, items) * days * DAY).astype(np.int64)
        self.popularity = 1.0 / np.arange(1, items + 1) ** 0.7
        random.shuffle(self.popularity)
        centre = np.random.default_rng(5).normal(size=(len(words.CATEGORIES), _TASTES))
        self.taste = centre[self.category] + random.normal(0, 0.8, (items, _TASTES))

    def rows(self, random: np.random.Generator) -> pa.Table:
        """Rows of the items table."""
        names, items = list(words.CATEGORIES), len(self.category)
        nouns = [words.CATEGORIES[names[code]] for code in self.category]
        titles = [
            f"{words.ADJECTIVES[int(random.integers(0, len(words.ADJECTIVES)))].capitalize()} "
            f"{noun[int(random.integers(0, len(noun)))]} no. {place + 1}"
            for place, noun in enumerate(nouns)
        ]
        regions = [sorted(r for r in _REGIONS if random.random() < 0.85) for _ in range(items)]
        return pa.table({
            "item_id": [f"i{item:06d}" for item in range(items)],
            "category": [names[code] for code in self.category],
            "title": titles,
            "description": [f"{t}: for everyone who likes {n[0]} and {n[-1]}." for t, n in zip(titles, nouns, strict=True)],
            "price": np.round(random.lognormal(3.0, 0.8, items), 2),
            "created_at": pa.array(self.arrived, pa.timestamp("us", "UTC")),
            "available": random.random(items) > 0.02,
            "regions": pa.array(regions, pa.list_(pa.string())),
            "unsafe": random.random(items) < 0.005,
        })  # fmt: skip


def user_tastes(people: People, seed: int) -> npt.NDArray[np.float32]:
    """float32[N, tastes]: industry and company shape a user's taste, the rest is their own."""
    random = np.random.default_rng([seed, 6])
    by_industry = random.normal(size=(len(words.INDUSTRIES), _TASTES))
    by_company = random.normal(0, 0.5, (int(people.company.max()) + 1, _TASTES))
    own = random.normal(0, 0.9, (len(people), _TASTES))
    return (by_industry[people.industry] + by_company[people.company] + own).astype(np.float32)


def interaction_rows(
    people: People, catalogue: Catalogue, tastes: npt.NDArray[np.float32], low: int, high: int,
    end: int, seed: int,
) -> pa.Table:  # fmt: skip
    """Interactions of the users in [low, high): by taste, popularity and what had arrived."""
    random = np.random.default_rng([seed, 7, low])
    fit = np.exp(0.9 * (tastes[low:high] @ catalogue.taste.T) / np.sqrt(_TASTES))
    odds = np.cumsum(fit * catalogue.popularity, axis=1)
    user, item, time = [], [], []
    for place in range(high - low):
        if random.random() < 0.06:
            continue  # some never touch the catalogue
        count = int(min(random.lognormal(2.4, 0.9) + 1, 300))
        drawn = np.unique(np.searchsorted(odds[place], random.random(count) * odds[place, -1]))
        begin = np.maximum(catalogue.arrived[drawn], people.joined[low + place])
        item.append(drawn)
        user.append(np.full(len(drawn), low + place))
        time.append(
            begin
            + (random.beta(0.8, 1.5, len(drawn)) * np.maximum(end - begin, 1)).astype(np.int64)
        )
    users, items, times = (
        np.concatenate(part) if part else np.zeros(0, np.int64) for part in (user, item, time)
    )
    event = random.choice(3, len(items), p=[0.7, 0.2, 0.1])
    return pa.table({
        "user_id": [f"u{each:07d}" for each in users],
        "item_id": [f"i{each:06d}" for each in items],
        "event": np.array(["view", "like", "purchase"])[event],
        "weight": np.array([1.0, 2.0, 3.0])[event],
        "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
    })  # fmt: skip


def impression_rows(
    people: People, source: IntArray, target: IntArray, time: IntArray, seed: int, lists: int
) -> pa.Table:
    """Lists of people that were shown: some became connections, position decides who is seen."""
    random = np.random.default_rng([seed, 8])
    users = len(people)
    chosen = random.choice(len(source), min(lists, len(source)), replace=False)
    rows: dict[str, list[object]] = {
        name: [] for name in ("user", "shown", "time", "id", "position", "action", "acted")
    }
    for number, edge in enumerate(np.sort(chosen)):
        shown = random.integers(0, users, 10)
        accepted = int(min(random.geometric(0.3) - 1, 9))
        shown[accepted] = target[edge]
        before = int(time[edge]) - int(random.integers(60, 86_400)) * 1_000_000
        for position, candidate in enumerate(shown):
            if candidate == source[edge]:
                continue
            action = "accept" if position == accepted else None
            if action is None and random.random() < 0.05 / (1 + position):
                action = ("click", "dismiss")[int(random.random() < 0.4)]
            rows["user"].append(f"u{source[edge]:07d}")
            rows["shown"].append(f"u{candidate:07d}")
            rows["time"].append(before)
            rows["id"].append(f"r{number:07d}")
            rows["position"].append(position + 1)
            rows["action"].append(action)
            rows["acted"].append(int(time[edge]) if action else None)
    utc = pa.timestamp("us", "UTC")
    return pa.table({
        "user_id": pa.array(rows["user"], pa.string()),
        "candidate_id": pa.array(rows["shown"], pa.string()),
        "timestamp": pa.array(rows["time"], utc),
        "recommendation_id": pa.array(rows["id"], pa.string()),
        "position": pa.array(rows["position"], pa.int32()),
        "action": pa.array(rows["action"], pa.string()),
        "action_timestamp": pa.array(rows["acted"], utc),
    })  # fmt: skip


def block_rows(people: People, source: IntArray, target: IntArray, seed: int) -> pa.Table:
    """A few blocks between people who are not connected."""
    random = np.random.default_rng([seed, 9])
    users = len(people)
    count = max(1, users // 200)
    blocker, blocked = random.integers(0, users, count), random.integers(0, users, count)
    known = set(
        zip(np.minimum(source, target).tolist(), np.maximum(source, target).tolist(), strict=True)
    )
    kept = [(a, b) for a, b in zip(blocker.tolist(), blocked.tolist(), strict=True)
            if a != b and (min(a, b), max(a, b)) not in known]  # fmt: skip
    return pa.table({
        "user_id": pa.array([f"u{a:07d}" for a, _ in kept], pa.string()),
        "other_id": pa.array([f"u{b:07d}" for _, b in kept], pa.string()),
    })  # fmt: skip
