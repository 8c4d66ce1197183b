"""What a feature is, and how features are found: declared once, used offline and online.

A feature group is one function that computes the columns of one idea for all rows of a
batch. Training, evaluation, ``recommend --all`` and serving call the same function on the
same columnar input, so there is no second definition to drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nextedge.discovery import import_modules, load_entry_points
from nextedge.errors import PluginError, ReleaseError
from nextedge.graph.scope import Scope
from nextedge.types import CONNECTS, ENGAGES, Candidates, Relation, Requests


@dataclass(frozen=True)
class Feature:
    """One named column the ranker may read.

    Attributes:
        name: unique, full words.
        formula: how it is computed, in words or symbols.
        reads: which part of the snapshot or request it comes from.
        live: whether events since the release change it.
    """

    name: str
    formula: str
    reads: str
    live: bool = False


@dataclass(frozen=True)
class FeatureInput:
    """What a feature group may read: the scope, a batch of requests and its candidates."""

    scope: Scope
    requests: Requests
    candidates: Candidates

    @cached_property
    def query(self) -> npt.NDArray[np.int32]:
        """int32[R]: the query's position, row by row (UNKNOWN where not in the release)."""
        return np.repeat(self.requests.query, np.diff(self.candidates.indptr))

    @property
    def candidate(self) -> npt.NDArray[np.int32]:
        """int32[R]: the candidate's position, row by row."""
        return self.candidates.candidate


Columns = dict[str, npt.NDArray[np.float32]]
Compute = Callable[[FeatureInput], Columns]
Declare = Callable[[Scope], Iterable[Feature]]


@dataclass(frozen=True)
class FeatureGroup:
    """Features that are computed together, for the relations they make sense for."""

    name: str
    relations: tuple[Relation, ...]
    declare: Declare
    compute: Compute
    live: bool = False
    """Whether it reads ``Requests.live``, and so may differ from request to request."""


_GROUPS: dict[str, FeatureGroup] = {}


def feature_group(
    name: str,
    declare: Declare,
    relations: tuple[Relation, ...] = (CONNECTS, ENGAGES),
    *,
    live: bool = False,
) -> Callable[[Compute], Compute]:
    """Register a function as the one definition of a group of features.

    A new group is one function in this package, or in one that offers its module by the entry
    point group ``nextedge.features``.

    Raises:
        PluginError: another module has a group of this name.
    """

    def register(compute: Compute) -> Compute:
        other = _GROUPS.get(name)
        if other is not None and other.compute.__module__ != compute.__module__:
            raise PluginError(
                f"{compute.__module__} and {other.compute.__module__} both have a feature group "
                f"{name!r}; rename the one that is not part of NextEdge"
            )
        _GROUPS[name] = FeatureGroup(name, relations, declare, compute, live)
        return compute

    return register


def feature_groups(relation: Relation) -> list[FeatureGroup]:
    """Every group of ``nextedge.features`` and of plug-ins that applies to a relation, by name."""
    import_modules("nextedge.features")
    load_entry_points("nextedge.features")
    # The order of imports differs from process to process; names do not.
    return [group for _, group in sorted(_GROUPS.items()) if relation in group.relations]


@dataclass(frozen=True)
class FeatureSet:
    """The features of one surface in a fixed order: the columns of the ranker's matrix."""

    groups: tuple[FeatureGroup, ...]
    features: tuple[Feature, ...] = field(default=())

    @classmethod
    def of(cls, scope: Scope, sources: FeatureGroup, exclude: tuple[str, ...] = ()) -> FeatureSet:
        """Return all features whose inputs the tenant has, without the excluded ones.

        Args:
            sources: the group of the candidate sources.
        """
        candidates = sorted(
            (*feature_groups(scope.relation), sources), key=lambda group: group.name
        )
        declared = {
            group: [feature for feature in group.declare(scope) if feature.name not in exclude]
            for group in candidates
        }
        groups = tuple(group for group, own in declared.items() if own)
        return cls(groups, tuple(feature for own in declared.values() for feature in own))

    @property
    def names(self) -> list[str]:
        """Names in the order of the matrix columns."""
        return [feature.name for feature in self.features]

    def ordered_as(self, names: Sequence[str]) -> FeatureSet:
        """The features a ranker was trained on, in its order.

        Raises:
            ReleaseError: one of them is no longer declared.
        """
        declared = {feature.name: feature for feature in self.features}
        missing = [name for name in names if name not in declared]
        if missing:
            raise ReleaseError(
                f"the ranker reads features that are not declared: {', '.join(missing)}; "
                "build the release again"
            )
        return FeatureSet(self.groups, tuple(declared[name] for name in names))

    def matrix(self, given: FeatureInput) -> npt.NDArray[np.float32]:
        """float32[R, F]: every feature of every row; NaN where there is no value."""
        matrix = np.full((len(given.candidates), len(self.features)), np.nan, np.float32)
        self._fill(matrix, given, self.groups)
        return matrix

    def renewed(
        self, given: FeatureInput, matrix: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """float32[R, F]: a kept matrix of the same candidates with its live features as of now."""
        groups = [group for group in self.groups if group.live]
        fresh = np.array(matrix)
        self._fill(fresh, given, groups)
        return fresh

    def _fill(
        self, matrix: npt.NDArray[np.float32], given: FeatureInput, groups: Sequence[FeatureGroup]
    ) -> None:
        place = {name: column for column, name in enumerate(self.names)}
        for group in groups:
            for name, values in group.compute(given).items():
                if name in place:
                    matrix[:, place[name]] = values

    @property
    def live(self) -> tuple[str, ...]:
        """Names of the features that may differ from request to request."""
        return tuple(feature.name for feature in self.features if feature.live)
