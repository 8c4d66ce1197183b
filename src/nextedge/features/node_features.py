"""The attributes of users or items as dense columns for models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextedge.graph.attributes import Attributes, Category, Number, Tags, Text
from nextedge.graph.propagate import SparseRows
from nextedge.types import FloatArray

if TYPE_CHECKING:
    from scipy import sparse

DIMENSIONS = 64


def node_features(attributes: Attributes, rows: int, dimensions: int = DIMENSIONS) -> FloatArray:
    """float32[rows, F]: numbers unchanged, all other attributes reduced to few dimensions.

    Categories, tags and hashed texts stand side by side as sparse columns, the rarer the
    heavier (inverse document frequency), and are reduced by truncated SVD (Deerwester et al.,
    JASIS 1990). F is 0 where there are no attributes; missing numbers are the column's mean.
    """
    from scipy import sparse
    from sklearn.utils.extmath import randomized_svd

    parts = [np.zeros((rows, 0), np.float32)]
    sets = []
    for column in attributes.columns.values():
        if isinstance(column, Number):
            values = np.asarray(column.values, np.float32)
            if np.isfinite(values).any():
                mean = values[np.isfinite(values)].mean()
                parts.append(np.where(np.isfinite(values), values, mean)[:, None])
        elif isinstance(column, Text):
            # Rows of texts are TF-IDF already.
            sets.append(_matrix(column.rows))
        elif isinstance(column, (Category, Tags)):
            sets.append(_rarer_heavier(_matrix(column.as_sets())))
    joined = sparse.hstack(sets).tocsc() if sets else sparse.csc_matrix((rows, 0), dtype=np.float32)
    # A value of one row alone relates it to no other row.
    joined = joined[:, np.diff(joined.indptr) > 1].tocsr()
    if joined.shape[1]:
        size = min(dimensions, *joined.shape)
        # A fixed state: the same attributes give the same columns in every build.
        left, value, _ = randomized_svd(joined, size, n_iter=3, random_state=0)
        parts.append((left * value).astype(np.float32))
    return np.concatenate(parts, axis=1)


def _matrix(rows: SparseRows) -> sparse.csr_matrix:
    from scipy import sparse

    return sparse.csr_matrix((rows.values, rows.indices, rows.indptr), (len(rows), rows.columns))


def _rarer_heavier(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    from scipy import sparse

    frequency = np.maximum(np.bincount(matrix.indices, minlength=matrix.shape[1]), 1)
    rarity = np.log1p(matrix.shape[0] / frequency).astype(np.float32)
    return (matrix @ sparse.diags(rarity)).tocsr()
