"""Trees as arrays, scored for a whole request at once: the form in which tree rankers serve.

Bit vectors over blocks of rows (Lucchese et al.: "QuickScorer", SIGIR 2015, and "Exploiting CPU
SIMD Extensions to Speed-up Document Scoring with Tree Ensembles", SIGIR 2016): every split that
a row fails clears the leaves to its left, and the lowest bit that is left is the row's leaf. All
splits of a tree are tried for a block of rows without a branch, several rows to an instruction.
The sums are the training library's, in its order and precision.
Cost: R rows x S splits / (8 to 16 rows an instruction).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numba
import numpy as np

from nextedge.types import FloatArray

_BLOCK = 32
_FULL = (1 << 64) - 1
_INFINITE = 1e300  # as LightGBM writes an infinite threshold


@dataclass(frozen=True, eq=False)
class Forest:
    """T regression trees with S splits and L leaves in all, at most 64 leaves a tree.

    Attributes:
        split_start, leaf_start: int32[T + 1], where each tree's splits and leaves begin.
        feature: int32[S], the column that a split reads.
        threshold: float32[S]; a row goes right where its value is above.
        missing_right: bool[S], whether a row without a value goes right.
        kept: uint32[S] or uint64[S], the leaves that remain for a row that goes right.
        value: float64[L] or float32[L] of the leaves, each tree's from left to right; scores are
            summed in this precision, as the training library does.
        base: [1], from which every sum begins.
    """

    split_start: np.ndarray
    leaf_start: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_right: np.ndarray
    kept: np.ndarray
    value: np.ndarray
    base: np.ndarray

    def __call__(self, matrix: FloatArray) -> np.ndarray:
        """float64[R] (float32 for XGBoost): scores of float32[R, F] rows; NaN is missing."""
        score = np.empty(len(matrix), self.value.dtype)
        _score(np.ascontiguousarray(matrix, np.float32), _BLOCK, *self._arrays, score)
        return score

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return tuple(getattr(self, part.name) for part in fields(self))

    @property
    def trees(self) -> int:
        """T."""
        return len(self.split_start) - 1

    def save(self, directory: Path) -> None:
        """Write the arrays into an existing folder as ``forest_….npy``."""
        for part in fields(self):
            np.save(directory / f"forest_{part.name}.npy", getattr(self, part.name))

    @classmethod
    def load(cls, directory: Path) -> Forest:
        """Read what ``save`` wrote."""
        return cls(
            *(
                np.load(directory / f"forest_{part.name}.npy", allow_pickle=False)
                for part in fields(cls)
            )
        )

    @classmethod
    def of_lightgbm(cls, booster: Any) -> Forest:
        """The trees of a ``lightgbm.Booster``; raw scores.

        Raises:
            ValueError: a split is categorical or takes zero for missing, or a tree has more
                than 64 leaves.
        """
        trees = []
        for info in booster.dump_model()["tree_info"]:
            trees.append(_Tree())
            trees[-1].add_lightgbm(info["tree_structure"])
        return cls._joined(trees, np.zeros(1))

    @classmethod
    def of_xgboost(cls, booster: Any) -> Forest:
        """The trees of an ``xgboost.Booster`` (``gbtree``); raw margins.

        Raises:
            ValueError: a split is categorical, or a tree has more than 64 leaves.
        """
        model = json.loads(bytes(booster.save_raw("json")))["learner"]
        trees = []
        for given in model["gradient_booster"]["model"]["trees"]:
            if given["categories_nodes"]:
                raise ValueError("a split is categorical; expected numerical splits")
            trees.append(_Tree())
            trees[-1].add_xgboost(given, 0)
        base = float(model["learner_model_param"]["base_score"].strip("[]"))
        if model["objective"]["name"].endswith(":logistic"):
            # XGBoost stores a probability, and trees add to its logit.
            base = float(np.log(base / (1.0 - base)))
        return cls._joined(trees, np.array([base], np.float32))

    @classmethod
    def _joined(cls, trees: list[_Tree], base: np.ndarray) -> Forest:
        def starts(sizes: list[int]) -> np.ndarray:
            return np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)

        def column(name: str, kind: Any) -> np.ndarray:
            return np.array([v for tree in trees for v in getattr(tree, name)], kind)

        most = max((len(tree.value) for tree in trees), default=1)
        if most > 64:
            raise ValueError(f"a tree has {most} leaves; expected at most 64")
        return cls(
            split_start=starts([len(tree.feature) for tree in trees]),
            leaf_start=starts([len(tree.value) for tree in trees]),
            feature=column("feature", np.int32),
            threshold=column("threshold", np.float32),
            missing_right=column("missing_right", np.bool_),
            # Half the bits where they suffice: twice as many rows to an instruction.
            kept=column("kept", np.uint64).astype(np.uint32 if most <= 32 else np.uint64),
            value=column("value", base.dtype),
            base=base,
        )


class _Tree:
    """One tree while it is read: splits from the root on, leaves from left to right."""

    def __init__(self) -> None:
        self.feature: list[int] = []
        self.threshold: list[np.float32] = []
        self.missing_right: list[bool] = []
        self.kept: list[int] = []
        self.value: list[float] = []

    def add_lightgbm(self, node: dict[str, Any]) -> int:
        """Add a node and what is below it; the bits of its leaves."""
        if "split_feature" not in node:
            return self._leaf(float(node["leaf_value"]))
        if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            raise ValueError(
                f"a split of type {node['decision_type']!r}, missing {node['missing_type']!r}; "
                "expected '<=' with missing NaN or None"
            )
        threshold = float(node["threshold"])
        missing_right = not node["default_left"]
        if node["missing_type"] == "None":  # LightGBM then reads a missing value as 0
            missing_right = threshold < 0.0
        at = self._split(int(node["split_feature"]), _not_above(threshold), missing_right)
        left = self.add_lightgbm(node["left_child"])
        self.kept[at] = _FULL ^ left
        return left | self.add_lightgbm(node["right_child"])

    def add_xgboost(self, tree: dict[str, Any], node: int) -> int:
        """Add a node and what is below it; the bits of its leaves."""
        condition = np.float32(tree["split_conditions"][node])
        if tree["left_children"][node] < 0:
            return self._leaf(float(condition))
        below = np.nextafter(condition, np.float32(-np.inf))  # goes right from the condition on
        missing_right = not tree["default_left"][node]
        at = self._split(int(tree["split_indices"][node]), below, missing_right)
        left = self.add_xgboost(tree, tree["left_children"][node])
        self.kept[at] = _FULL ^ left
        return left | self.add_xgboost(tree, tree["right_children"][node])

    def _split(self, feature: int, threshold: np.float32, missing_right: bool) -> int:
        self.feature.append(feature)
        self.threshold.append(threshold)
        self.missing_right.append(missing_right)
        self.kept.append(_FULL)
        return len(self.feature) - 1

    def _leaf(self, value: float) -> int:
        self.value.append(value)
        return 1 << (len(self.value) - 1)


def _not_above(threshold: float) -> np.float32:
    """The largest float32 not above."""
    if abs(threshold) >= _INFINITE:
        return np.float32(np.inf if threshold > 0 else -np.inf)
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
    # Rounded up, it would send float32 values between the two to the other side.
    return near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf))


@numba.njit(cache=True, nogil=True)
def _score(  # type: ignore[no-untyped-def]
    matrix,
    block,
    split_start,
    leaf_start,
    feature,
    threshold,
    missing_right,
    kept,
    value,
    base,
    score,
):
    # ``block`` is no constant: a loop of known length would be unrolled, not vectorised.
    rows, width = matrix.shape
    x = np.empty((width, block), np.float32)
    left = np.empty(block, kept.dtype)
    total = np.empty(block, value.dtype)
    every = ~(kept.dtype.type(0))
    # A de Bruijn sequence: the top six bits of its product with each single bit differ.
    factor = np.uint64(0x03F79D71B4CB0A89)
    place = np.zeros(64, np.int64)  # place[(bit * factor) >> 58] is the number of the bit
    for bit in range(64):
        place[((np.uint64(1) << np.uint64(bit)) * factor) >> np.uint64(58)] = bit
    for begin in range(0, rows, block):
        size = min(block, rows - begin)
        for row in range(block):
            # The last block repeats its last row: all loops have one length.
            source = begin + min(row, size - 1)
            for column in range(width):
                # By column: the rows of a split lie side by side for one instruction.
                x[column, row] = matrix[source, column]
        total[:] = base[0]
        for tree in range(len(split_start) - 1):
            left[:] = every
            for split in range(split_start[tree], split_start[tree + 1]):
                # An unsigned index needs no branch for negative ones.
                seen, edge, rest = x[np.uint64(feature[split])], threshold[split], kept[split]
                # A comparison with NaN is false: the operator decides where a missing value goes.
                if missing_right[split]:
                    for row in range(block):
                        left[row] &= every if seen[row] <= edge else rest
                else:
                    for row in range(block):
                        left[row] &= rest if seen[row] > edge else every
            first = leaf_start[tree]
            for row in range(block):
                bits = np.uint64(left[row])
                lowest = bits & (~bits + np.uint64(1))
                total[row] += value[first + place[(lowest * factor) >> np.uint64(58)]]
        for row in range(size):
            score[begin + row] = total[row]
