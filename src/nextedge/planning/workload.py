"""What is asked of a plan: a tenant's size, its traffic, its settings, and the machines to be had."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from nextedge.config import Config, SurfaceConfig
from nextedge.errors import InputError
from nextedge.planning.degrees import Degrees

PEOPLE, ITEMS = "people", "items"
MOST = 1e15
"""Largest figure that is taken: beyond it plans say nothing, and laws overflow."""
_LEAST = {"p99_ms": 0.0, "refresh_hours": 0.01, "memory_gib": 0.0, "cores": 1.0}
"""Least value of what may not be 0. A worker has a core of its own."""


@dataclass(frozen=True)
class Size:
    """How much there is of everything that the cost of a stage grows with.

    Attributes:
        users, items: rows of their tables.
        entries: of the graph of connections, Σ degree; a connection of two counts at both ends.
        wedges: two-hop paths walked when candidates are found for everybody, Σ degree².
        interactions: distinct (user, item) pairs.
        impressions: rows of their table.
    """

    users: float
    entries: float
    wedges: float
    items: float
    interactions: float
    impressions: float

    @property
    def rows(self) -> float:
        """Rows of all tables."""
        return self.users + self.entries / 2 + self.items + self.interactions + self.impressions

    @property
    def records(self) -> float:
        """Entries of all graphs, each relation in the directions that are kept."""
        return self.entries + 2 * self.interactions

    @property
    def nodes(self) -> float:
        """Users and items."""
        return self.users + self.items

    @property
    def degree(self) -> float:
        """Connections of a user."""
        return self.entries / self.users if self.users else 0.0

    @property
    def neighbor_degree(self) -> float:
        """Connections of a user's connections, on average: Σ degree² / Σ degree."""
        return self.wedges / self.entries if self.entries else 0.0

    @property
    def history(self) -> float:
        """Items of a user."""
        return self.interactions / self.users if self.users else 0.0


@dataclass(frozen=True)
class Machine:
    """One machine of which a plan takes as many as it needs, and what things cost.

    Prices are in whatever money they are given in; the defaults are round numbers near what
    clouds ask, of no vendor.

    Attributes:
        memory_gib, cores: of a machine.
        core_hour, gib_hour: price of a core and of a GiB of memory for an hour.
        redis_gib_hour: price of a GiB of a Redis for an hour.
        stored_gib_month: price of a GiB of releases and logs for a month.
    """

    memory_gib: float = 64.0
    cores: float = 16.0
    core_hour: float = 0.04
    gib_hour: float = 0.005
    redis_gib_hour: float = 0.02
    stored_gib_month: float = 0.023

    @property
    def hour(self) -> float:
        """Price of the machine for an hour."""
        return self.cores * self.core_hour + self.memory_gib * self.gib_hour


@dataclass(frozen=True)
class Traffic:
    """What is asked of the online line, and how often everything is built anew.

    Attributes:
        qps: requests a second at the peak.
        p99_ms: time within which 99 of 100 must be answered.
        refresh_hours: between one release and the next.
        events_per_second: facts recorded (clicks, connections, blocks), all users together.
    """

    qps: float = 100.0
    p99_ms: float = 100.0
    refresh_hours: float = 24.0
    events_per_second: float = 10.0


@dataclass(frozen=True)
class Workload:
    """Everything that a plan is made from.

    Attributes:
        size: what there is.
        degrees: how the connections are spread.
        traffic: what is asked.
        machine: what it runs on.
        surfaces: settings of each surface, by name; people, items or both.
        keep_features: whether published candidates hold their features.
        cache_seconds: how long ranked lists are kept.
        left_out: configured surfaces that no edges were given for.
    """

    size: Size
    degrees: Degrees
    traffic: Traffic = field(default_factory=Traffic)
    machine: Machine = field(default_factory=Machine)
    surfaces: Mapping[str, SurfaceConfig] = field(default_factory=dict)
    keep_features: bool = False
    cache_seconds: float = 3600.0
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _above_zero("--users", self.size.users, 2)
        for name in ("entries", "items", "interactions", "impressions"):
            _at_least_zero(f"number of {name}", getattr(self.size, name))
        if self.degrees.mean > self.size.users - 1:
            raise InputError(
                f"--degree {self.degrees.mean:g}: nobody can have more connections than there are "
                f"other users; expected at most {self.size.users - 1:,.0f}"
            )
        if not self.surfaces:
            raise InputError(
                "nothing to recommend: give --degree for people, or --items and "
                "--interactions-per-user for items"
            )
        for part in (self.traffic, self.machine):
            for each in fields(part):
                value, option = getattr(part, each.name), option_of(each.name)
                if each.name in _LEAST:
                    _above_zero(option, value, _LEAST[each.name])
                else:
                    _at_least_zero(option, value)


def size_of(
    users: float, degrees: Degrees, items: float, per_user: float, impressions_per_user: float
) -> Size:
    """A size from the figures of one user.

    Raises:
        InputError: one is below 0, or a user has more items than there are.
    """
    _at_least_zero("--items", items)
    _at_least_zero("--interactions-per-user", per_user)
    _at_least_zero("--impressions-per-user", impressions_per_user)
    if per_user > items:
        raise InputError(
            f"--interactions-per-user {per_user:g}: nobody can have more items than there are; "
            f"expected at most --items, which is {items:,.0f}"
        )
    return Size(
        users=users,
        entries=users * degrees.mean,
        wedges=users * degrees.walked,
        items=items,
        interactions=users * per_user,
        impressions=users * impressions_per_user,
    )


def surfaces_for(config: Config, size: Size) -> dict[str, SurfaceConfig]:
    """Surfaces that the size has edges for: of those configured, or with the default settings."""
    edges = {PEOPLE: size.entries, ITEMS: size.interactions}
    there = config.surfaces or {kind: SurfaceConfig(kind=kind) for kind in edges}
    return {name: surface for name, surface in there.items() if edges[surface.kind]}


def hub_cap(surface: SurfaceConfig | None) -> float:
    """Degree above which walks do not pass a node; 0 = they pass all."""
    setting = None if surface is None else surface.sources.get("two_hop")
    return 0.0 if setting is None else float(setting.options.get("hub_cap", 0))


_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9}


def number(text: str, name: str) -> float:
    """A count as people write them.

    >>> number("1B", "--users"), number("2.5k", "--qps"), number("1_000", "--items")
    (1000000000.0, 2500.0, 1000.0)

    Raises:
        InputError: it is no number, or larger than ``MOST``.
    """
    plain = text.strip().lower().replace("_", "").replace(",", "")
    scale = _SCALES.get(plain[-1:], 1.0)
    try:
        value = float(plain[:-1] if scale > 1 else plain) * scale
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} {text!r}: expected a number such as 2500, 2.5k, 10M, 1B or 1e9")
    if value > MOST:
        raise InputError(f"{name} {text!r}: expected at most {MOST:g}")
    return value


def option_of(name: str) -> str:
    """The command's option for a setting of the traffic or of the machine."""
    word = name.replace("_", "-")
    if name in ("memory_gib", "cores"):
        return f"--machine-{word}"
    return f"--{word}" if name in {each.name for each in fields(Traffic)} else f"--{word}-price"


def _above_zero(name: str, value: float, least: float) -> None:
    if not (value > 0 and least <= value <= MOST):
        wanted = f"{least:g} or more" if least else "more than 0"
        raise InputError(f"{name} {value:g}: expected {wanted}, and at most {MOST:g}")


def _at_least_zero(name: str, value: float) -> None:
    if not 0 <= value <= MOST:
        raise InputError(f"{name} {value:g}: expected 0 or more, and at most {MOST:g}")
