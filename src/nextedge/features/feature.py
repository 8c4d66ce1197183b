"""Features and their groups: declared once, computed alike offline and online.

A feature group is one function that computes the columns of one idea for all rows of a batch.
Training, evaluation, ``recommend --all`` and serving call the same function on the same input, so
that offline and online values cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nextedge.discovery import import_modules, load_entry_points
from nextedge.errors import PluginError, ReleaseError
from nextedge.graph.scope import Scope
from nextedge.types import (
    CONNECTS,
    ENGAGES,
    Candidates,
    FloatArray,
    IndexArray,
    IntArray,
    Relation,
    Requests,
)

Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True)
class Feature:
    """One named column that the ranker may read.

    Attributes:
        name: unique, full words.
        formula: in words or symbols.
        reads: the parts of the snapshot or request that it comes from.
        live: whether events since the release change it.
    """

    name: str
    formula: str
    reads: str
    live: bool = False


@dataclass(frozen=True)
class FeatureInput:
    """The input of a feature group: the scope, a batch of Q requests and its R candidates."""

    scope: Scope
    requests: Requests
    candidates: Candidates

    @cached_property
    def query(self) -> IndexArray:
        """int32[R]: the query's position, row by row (UNKNOWN where not in the release)."""
        return self.by_row(self.requests.query)

    @property
    def candidate(self) -> IndexArray:
        """int32[R]: the candidate's position, row by row."""
        return self.candidates.candidate

    @property
    def pairs(self) -> tuple[IndexArray, IntArray, IndexArray]:
        """Queries int32[Q], and their ragged candidates: int64[Q + 1] and int32[R]."""
        return self.requests.query, self.candidates.indptr, self.candidates.candidate

    def by_row(self, of_query: npt.NDArray[Value]) -> npt.NDArray[Value]:
        """[R]: the value of each query (``of_query`` [Q]), at each of its candidates."""
        return np.repeat(of_query, np.diff(self.candidates.indptr))

    def of_query(self, values: FloatArray) -> FloatArray:
        """float[R]: the value of the query (by position), row by row; NaN where it is unknown."""
        return np.where(self.query >= 0, values[np.maximum(self.query, 0)], np.nan)

    def both_sides(self, name: str, by_query: FloatArray, by_candidate: FloatArray) -> Columns:
        """The columns ``query_NAME`` and ``candidate_NAME``, from values by position."""
        of_candidate = by_candidate[self.candidate]
        return {f"query_{name}": self.of_query(by_query), f"candidate_{name}": of_candidate}


Columns = dict[str, FloatArray]
Compute = Callable[[FeatureInput], Columns]
Declare = Callable[[Scope], Iterable[Feature]]


@dataclass(frozen=True)
class FeatureGroup:
    """Features that one function computes, and the relations that have them."""

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
        # A module that is loaded again replaces its own groups.
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
        """All features whose inputs the tenant has, without the excluded ones.

        Args:
            sources: the group of the candidate sources.
        """
        groups = sorted((*feature_groups(scope.relation), sources), key=lambda group: group.name)
        declared = {
            group: [feature for feature in group.declare(scope) if feature.name not in exclude]
            for group in groups
        }
        features = tuple(feature for part in declared.values() for feature in part)
        return cls(tuple(group for group, part in declared.items() if part), features)

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

    def matrix(self, inputs: FeatureInput) -> FloatArray:
        """float32[R, F]: every feature of every row; NaN where there is no value."""
        matrix = np.full((len(inputs.candidates), len(self.features)), np.nan, np.float32)
        return self._filled(matrix, inputs, self.groups)

    def renewed(self, inputs: FeatureInput, matrix: FloatArray) -> FloatArray:
        """float32[R, F]: a cached matrix of the same candidates, its live features as of now."""
        # A copy: other requests read the cached matrix at the same time.
        return self._filled(np.array(matrix), inputs, [g for g in self.groups if g.live])

    def _filled(
        self, matrix: FloatArray, inputs: FeatureInput, groups: Sequence[FeatureGroup]
    ) -> FloatArray:
        column_of = {name: column for column, name in enumerate(self.names)}
        for group in groups:
            for name, values in group.compute(inputs).items():
                # A group also computes features that the configuration excludes.
                if name in column_of:
                    matrix[:, column_of[name]] = values
        return matrix

    @property
    def live(self) -> tuple[str, ...]:
        """Names of the features that may differ from request to request."""
        return tuple(feature.name for feature in self.features if feature.live)
