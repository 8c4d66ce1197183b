"""The evaluation report: what was measured, of which system, by which protocol.

A tree of frozen dataclasses that goes to plain JSON values and back. What could not be
measured is NaN here and null in JSON.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nextedge.errors import InputError
from nextedge.evaluation._ragged import FloatArray, IntArray
from nextedge.evaluation.beyond_accuracy import BeyondAccuracy
from nextedge.evaluation.bootstrap import (
    DEFAULT_BOOTSTRAP,
    BootstrapConfig,
    Interval,
    PairedInterval,
    bootstrap_intervals,
    paired_bootstrap,
)
from nextedge.evaluation.candidate_recall import CandidateRecall
from nextedge.evaluation.classification import ClassificationMetrics
from nextedge.evaluation.impressions import ImpressionReport
from nextedge.evaluation.ranking import RECALL_DENOMINATOR, RankMetrics
from nextedge.evaluation.slices import SliceMetrics, slice_metrics

SystemKind = Literal["source", "baseline", "ranker", "full_line"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How the figures were made: enough to make them again; ``text`` says the rest in words."""

    split: str
    k: int
    queries: int
    recall_denominator: str = RECALL_DENOMINATOR
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP
    text: str = ""

    @property
    def seed(self) -> int:
        """The seed of the intervals' resamples."""
        return self.bootstrap.seed


@dataclass(frozen=True, slots=True)
class SystemReport:
    """All that was measured of one system; ``metrics`` keeps main metrics first."""

    name: str
    kind: SystemKind
    metrics: dict[str, Interval]
    slices: dict[str, SliceMetrics] = field(default_factory=dict)
    classification: ClassificationMetrics | None = None
    beyond_accuracy: BeyondAccuracy | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system against another on one metric, over the same queries."""

    system: str
    against: str
    metric: str
    paired: PairedInterval


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """The evaluation of one surface."""

    surface: str
    protocol: Protocol
    systems: tuple[SystemReport, ...]
    candidate_recall: CandidateRecall | None = None
    comparisons: tuple[Comparison, ...] = ()
    shown: ImpressionReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers; NaN as None, ∞ as "inf"."""
        plain = _encode(self)
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> EvaluationReport:
        """Return the report that :meth:`to_json` gave; raises InputError for another form."""
        report = _decode(cls, plain, "report")
        assert isinstance(report, cls)
        return report


def system_report(
    name: str,
    kind: SystemKind,
    metrics: RankMetrics,
    degree: IntArray | None = None,
    config: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> SystemReport:
    """Return the report of a system's rank metrics, with slices when ``degree int[Q]`` is given.

    Add the rest by ``dataclasses.replace(report, classification=…, beyond_accuracy=…)``.
    """
    named = metrics.named()
    slices = {} if degree is None else slice_metrics(named, degree, config)
    return SystemReport(name, kind, bootstrap_intervals(named, config), slices)


def compare(
    system: tuple[str, FloatArray],
    against: tuple[str, FloatArray],
    metric: str,
    config: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> Comparison:
    """Compare two systems, each (name, ``float64[Q]`` of the metric), on the same queries."""
    paired = paired_bootstrap(
        system[1], against[1], resamples=config.resamples, seed=config.seed, level=config.level
    )
    return Comparison(system[0], against[0], metric, paired)


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {each.name: _encode(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _encode(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_encode(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):  # JSON has neither
        return None if math.isnan(value) else str(value)
    return value


def _decode(kind: Any, plain: Any, where: str) -> Any:
    """Return ``plain`` as the annotated type ``kind``; ``where`` is named in errors."""
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, plain, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        # Every union in a report is a type or None.
        return None if plain is None else _decode(arguments[0], plain, where)
    if origin is Literal:
        return _expect(plain in arguments, plain, f"one of {', '.join(arguments)}", where)
    if origin is dict:
        _expect(isinstance(plain, Mapping), plain, "an object", where)
        return {key: _decode(arguments[1], each, f"{where}.{key}") for key, each in plain.items()}
    if origin is tuple:
        _expect(isinstance(plain, list | tuple), plain, "a list", where)
        return tuple(_decode(arguments[0], each, f"{where}[{i}]") for i, each in enumerate(plain))
    if kind is float:
        if plain in (None, "inf", "-inf"):
            return math.nan if plain is None else float(plain)
        number = isinstance(plain, int | float) and not isinstance(plain, bool)  # a bool is an int
        return float(_expect(number, plain, "a number or null", where))
    right_kind = isinstance(plain, kind) and not isinstance(plain, bool)
    return _expect(right_kind, plain, kind.__name__, where)


def _decode_dataclass(kind: Any, plain: Any, where: str) -> Any:
    fields = dataclasses.fields(kind)
    names = {each.name for each in fields}
    # Reports of older versions lack what was measured since: it is unknown there.
    required = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    given = set(plain) if isinstance(plain, Mapping) else None
    right = given is not None and required <= given <= names
    _expect(right, given or plain, f"an object of {', '.join(sorted(names))}", where)
    # The types of the fields are text, because annotations are postponed.
    hints = get_type_hints(kind)
    return kind(
        **{name: _decode(hints[name], plain[name], f"{where}.{name}") for name in given or ()}
    )


def _expect(right: bool, plain: Any, expected: str, where: str) -> Any:
    if not right:
        raise InputError(
            f"{where} is {plain!r}; expected {expected}. The report was written by another "
            "version or altered: run the evaluation again"
        )
    return plain
