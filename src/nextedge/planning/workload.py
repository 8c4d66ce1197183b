"""The input of a plan: a tenant's size, its traffic, its settings, and the machines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nextedge.config import Config, SurfaceConfig
from nextedge.errors import InputError
from nextedge.planning.degrees import Degrees

PEOPLE, ITEMS = "people", "items"
LARGEST = 1e15
"""Largest number of an option: beyond it laws overflow."""
ABOVE_ZERO = 1e-9
_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True)
class Size:
    """Quantities that the cost of a step grows with.

    Attributes:
        entries: of the graph of connections, Σ degree; a connection of two counts at both ends.
        wedges: two-hop paths of all users, Σ degree² within the hub cap.
        interactions: distinct (user, item) pairs.
    """

    users: float
    entries: float
    wedges: float
    items: float
    interactions: float
    impressions: float


@dataclass(frozen=True)
class Machine:
    """One machine, and prices in any currency; the defaults are round numbers of no vendor.

    Attributes:
        core_hour, gib_hour: price of a core and of a GiB of memory for an hour.
        redis_gib_hour: price of a GiB of Redis for an hour.
        stored_gib_month: price of a GiB of files for a month.
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
    """Peak requests a second, their latency bound, hours between releases, events a second."""

    qps: float = 100.0
    p99_ms: float = 100.0
    refresh_hours: float = 24.0
    events_per_second: float = 10.0


@dataclass(frozen=True)
class Workload:
    """Everything that a plan is made from.

    Attributes:
        surfaces: settings by name.
        keep_features: whether published candidates hold their features.
        cache_seconds: lifetime of cached ranked lists.
        left_out: configured surfaces that have no edges.
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
        users, items = self.size.users, self.size.items
        if self.degrees.mean > users - 1:
            raise InputError(
                f"--degree {self.degrees.mean:g}: nobody can have more connections than there are "
                f"other users; expected at most {users - 1:,.0f}"
            )
        if (per_user := self.size.interactions / users) > items:
            raise InputError(
                f"--interactions-per-user {per_user:g}: nobody can have more items than there are; "
                f"expected at most --items, which is {items:,.0f}"
            )
        if not self.surfaces:
            raise InputError(
                "nothing to recommend: give --degree for people, or --items and "
                "--interactions-per-user for items"
            )


def surfaces_for(config: Config, size: Size) -> dict[str, SurfaceConfig]:
    """Configured or default surfaces, of those that the size has edges for."""
    edges = {PEOPLE: size.entries, ITEMS: size.interactions}
    surfaces = config.surfaces or {kind: SurfaceConfig(kind=kind) for kind in edges}
    return {name: surface for name, surface in surfaces.items() if edges[surface.kind]}


def number(text: str, option: str, least: float = 0.0) -> float:
    """The number in the text of an option, within its bounds.

    >>> number("1B", "--users"), number("2.5k", "--qps"), number("1_000", "--items")
    (1000000000.0, 2500.0, 1000.0)

    Raises:
        InputError: the text is no number, or out of bounds.
    """
    plain = text.strip().lower().replace("_", "").replace(",", "")
    scale = _SCALES.get(plain[-1:], 1.0)
    try:
        value = float(plain[:-1] if scale > 1 else plain) * scale
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{option} {text!r}: expected a number such as 2500, 2.5k, 10M or 1e9")
    if not least <= value <= LARGEST:
        wanted = "more than 0" if least == ABOVE_ZERO else f"{least:g} or more"
        raise InputError(f"{option} {text!r}: expected {wanted}, at most {LARGEST:g}")
    return value
