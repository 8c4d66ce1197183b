"""Nearest-neighbour search by dot product: one index of faiss, tuned to a recall and checked.

Douze et al.: "The Faiss library", 2024. Kinds, with n vectors of d dimensions:

======== =============================== ==================== =====================
kind      method                          bytes a vector       vectors read a search
======== =============================== ==================== =====================
flat      brute force                     4 d                  n
hnsw      navigable small-world graph     4 d + 256            grows with log n
ivf_flat  cells of k-means                4 d                  n · probed / cells
ivf_sq8   the same, 8 bits a dimension    d                    n · probed / cells
ivf_pq    the same, product-quantised     d / 4                n · probed / cells
======== =============================== ==================== =====================
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from nextedge.errors import IndexRecallError, MissingDependencyError, ReleaseError
from nextedge.types import BoolArray, FloatArray, IndexArray, Waiting

Kind = Literal["flat", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXACT_SEARCH_MAX_ITEMS = 50_000
"""Most vectors for brute force, which then takes less time than the tuning of an index."""
CHECKED_QUERIES = 10_000
"""Most queries in the comparison of a finished index with brute force."""
_TUNING_QUERIES = 256
_LOWEST_SELECTIVITY = 0.05
"""Share of vectors below which a filter makes the search exact: an approximate walk finds hardly any
of the few allowed vectors (faiss issue 4727)."""
_MANIFEST = "index.json"
_FILE = "index.faiss"


@dataclass(frozen=True)
class IndexReport:
    """The kind of an index, and its measured recall.

    Attributes:
        kind: one of ``KINDS``.
        size, dimensions: of the vectors.
        probe: cells that a search reads (ivf), or size of its candidate list (hnsw); 0 for flat.
        recall: share of the true ``k`` best in the results.
        k: of the check.
        queries: number of queries compared with brute force.
    """

    kind: Kind
    size: int
    dimensions: int
    probe: int
    recall: float
    k: int
    queries: int


def choose_kind(
    size: int,
    dimensions: int,
    memory_bytes: int,
    exact_search_max_items: int = EXACT_SEARCH_MAX_ITEMS,
) -> Kind:
    """The kind of index for a number of vectors within a memory budget.

    >>> choose_kind(10_000, 128, 1 << 30), choose_kind(1_000_000, 128, 1 << 30)
    ('flat', 'ivf_flat')
    >>> choose_kind(10_000_000, 128, 2 << 30), choose_kind(10_000_000, 128, 1 << 30)
    ('ivf_sq8', 'ivf_pq')
    """
    if size <= exact_search_max_items:
        return "flat"
    if size * dimensions * 4 <= memory_bytes:
        return "ivf_flat"
    return "ivf_sq8" if size * dimensions <= memory_bytes else "ivf_pq"


class VectorIndex:
    """A built index over float32[N, d] vectors; positions are those of the rows."""

    def __init__(self, index: Any, vectors: FloatArray, report: IndexReport) -> None:
        self._index = index
        self._vectors = vectors
        self.report = report

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        queries: FloatArray,
        *,
        k: int = 500,
        kind: Kind | None = None,
        target_recall: float = 0.95,
        memory_bytes: int = 4 << 30,
        seed: int = 0,
    ) -> VectorIndex:
        """Build, tune the search to the target recall, and check it against brute force.

        Args:
            vectors: float32[N, d].
            queries: float32[Q, d], like those of later searches; some tune, up to 10,000 check.
            k: number of results of which recall is measured.
            kind: default: by size and memory.

        Raises:
            IndexRecallError: no setting reaches the target.
        """
        # faiss reads contiguous float32 alone.
        vectors = np.ascontiguousarray(vectors, np.float32)
        size, dimensions = vectors.shape
        kind = kind or choose_kind(size, dimensions, memory_bytes)
        k = min(k, size)
        index = _new_index(kind, vectors, seed)
        built = cls(index, vectors, IndexReport(kind, size, dimensions, 0, 1.0, k, 0))
        if kind == "flat" or not len(queries):
            return built
        random = np.random.default_rng(seed)
        drawn = random.permutation(len(queries))[:CHECKED_QUERIES]
        checked = np.ascontiguousarray(queries[drawn], np.float32)
        truth = exact_search(vectors, checked, k)
        probe = built._tuned(checked[:_TUNING_QUERIES], truth[:_TUNING_QUERIES], target_recall)
        # The few queries that tune may be easier than the rest: all of them must reach the target.
        while True:
            recall = built._recall(checked, truth, probe)
            if recall >= target_recall or probe >= built._widest():
                break
            probe = min(int(probe * 1.25) + 1, built._widest())
        if recall < target_recall:
            raise IndexRecallError(
                f"index {kind}: recall@{k} is {recall:.4f} over {len(checked)} queries, expected "
                f"{target_recall} or more; take another kind, or lower target_recall"
            )
        built.report = replace(built.report, probe=probe, recall=recall, queries=len(checked))
        built._set_probe(probe)
        return built

    def search(
        self,
        queries: FloatArray,
        k: int,
        allowed: BoolArray | None = None,
        waiting: Waiting | None = None,
    ) -> tuple[IndexArray, FloatArray]:
        """The k best of each query, best first.

        Args:
            queries: float32[Q, d].
            allowed: bool[N], vectors that may be in the result; None = all.
            waiting: for indexes in other processes; unused here.

        Returns:
            (int32[Q, k] positions, float32[Q, k] dot products); missing results have position -1
            and score -inf.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if allowed is None:
            return self._walk(queries, k, None)
        positions = np.flatnonzero(allowed).astype(np.int32)
        if len(positions) <= max(k, _LOWEST_SELECTIVITY * self.report.size):
            return _best(queries @ np.asarray(self._vectors[positions]).T, positions, k)
        faiss = _faiss()
        # faiss numbers the bits of a byte from the lowest.
        bitmap = np.packbits(allowed, bitorder="little")
        return self._walk(queries, k, faiss.IDSelectorBitmap(bitmap))

    def save(self, directory: Path) -> None:
        """Write into an existing folder."""
        faiss = _faiss()
        faiss.write_index(self._index, str(directory / _FILE))
        (directory / _MANIFEST).write_text(json.dumps(vars(self.report), indent=1))

    @classmethod
    def load(cls, directory: Path, vectors: FloatArray) -> VectorIndex:
        """Memory-map a saved index over the same vectors.

        Raises:
            ReleaseError: the files are not an index of these vectors.
        """
        faiss = _faiss()
        try:
            report = IndexReport(**json.loads((directory / _MANIFEST).read_text()))
            flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            index = faiss.read_index(str(directory / _FILE), flags)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise ReleaseError(f"{directory}: not an index: {error}") from None
        if (index.ntotal, index.d) != vectors.shape:
            raise ReleaseError(
                f"{directory}: an index of {index.ntotal} × {index.d}, expected {vectors.shape}"
            )
        loaded = cls(index, vectors, report)
        loaded._set_probe(report.probe)
        return loaded

    def _walk(self, queries: FloatArray, k: int, chosen: Any) -> tuple[IndexArray, FloatArray]:
        faiss = _faiss()
        parameters = None
        if chosen is not None:
            kind, probe = self.report.kind, self.report.probe
            if kind == "flat":
                parameters = faiss.SearchParameters(sel=chosen)
            elif kind == "hnsw":
                # HNSW returns no more results than its candidate list is long.
                parameters = faiss.SearchParametersHNSW(sel=chosen, efSearch=max(probe, k))
            else:
                parameters = faiss.SearchParametersIVF(sel=chosen, nprobe=probe)
        elif self.report.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(self.report.probe, k))
        score, position = self._index.search(queries, min(k, self.report.size), params=parameters)
        # faiss gives missing results the lowest finite score.
        score = np.where(position >= 0, score, -np.inf).astype(np.float32)
        return position.astype(np.int32), score

    def _widest(self) -> int:
        return self.report.size if self.report.kind == "hnsw" else int(self._index.nlist)

    def _set_probe(self, probe: int) -> None:
        self.report = replace(self.report, probe=probe)
        if self.report.kind.startswith("ivf"):
            self._index.nprobe = max(probe, 1)
        elif self.report.kind == "hnsw":
            self._index.hnsw.efSearch = max(probe, 1)

    def _recall(self, queries: FloatArray, truth: IndexArray, probe: int) -> float:
        self._set_probe(probe)
        position, _ = self._walk(queries, truth.shape[1], None)
        return recall_at(position, truth)

    def _tuned(self, queries: FloatArray, truth: IndexArray, target: float) -> int:
        """The smallest setting that reaches the target on the tuning queries, by bisection."""
        low, high = 1, self._widest()
        if self.report.kind == "hnsw":
            # A search raises shorter candidate lists to k.
            low, high = truth.shape[1], min(high, 16 * truth.shape[1])
        while low < high:
            middle = (low + high) // 2
            if self._recall(queries, truth, middle) >= target:
                high = middle
            else:
                low = middle + 1
        return low


def exact_search(vectors: FloatArray, queries: FloatArray, k: int) -> IndexArray:
    """int32[Q, k]: the true best by brute force."""
    faiss = _faiss()
    _, position = faiss.knn(
        np.ascontiguousarray(queries, np.float32),
        np.ascontiguousarray(vectors, np.float32),
        k,
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    return np.asarray(position, np.int32)


def recall_at(found: IndexArray, truth: IndexArray) -> float:
    """Share of the true results that a search found, row by row.

    >>> recall_at(np.int32([[1, 2]]), np.int32([[2, 3]]))
    0.5
    """
    # Row numbers in the upper bits: one ``isin`` compares all rows.
    wanted = np.sort(truth, axis=1).astype(np.int64) + (np.arange(len(truth))[:, None] << 32)
    got = found.astype(np.int64) + (np.arange(len(found))[:, None] << 32)
    return float(np.isin(got[found >= 0], wanted.ravel()).sum() / max(truth.size, 1))


def _best(score: FloatArray, positions: IndexArray, k: int) -> tuple[IndexArray, FloatArray]:
    # Stable: ties stay by position, as in ``merged``.
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    position_QK = np.full((len(score), k), -1, np.int32)
    score_QK = np.full((len(score), k), -np.inf, np.float32)
    position_QK[:, : order.shape[1]] = positions[order]
    score_QK[:, : order.shape[1]] = np.take_along_axis(score, order, axis=1)
    return position_QK, score_QK


def _new_index(kind: Kind, vectors: FloatArray, seed: int) -> Any:
    faiss = _faiss()
    size, dimensions = vectors.shape
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        index = faiss.IndexFlat(dimensions, metric)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimensions, 32, metric)
        index.hnsw.efConstruction = 80
    else:
        # k-means of faiss wants 39 vectors a cell or more.
        cells = int(np.clip(4 * np.sqrt(size), 1, max(size // 39, 1)))
        coarse = faiss.IndexFlat(dimensions, metric)
        if kind == "ivf_flat":
            index = faiss.IndexIVFFlat(coarse, dimensions, cells, metric)
        elif kind == "ivf_sq8":
            code = faiss.ScalarQuantizer.QT_8bit
            index = faiss.IndexIVFScalarQuantizer(coarse, dimensions, cells, code, metric)
        else:
            # Product quantisation takes parts of equal width.
            parts = next(p for p in range(max(dimensions // 4, 1), 0, -1) if dimensions % p == 0)
            bits = int(
                np.clip(np.log2(max(size, 8) / 4), 1, 8)
            )  # k-means needs points for each code
            index = faiss.IndexIVFPQ(coarse, dimensions, cells, parts, bits, metric)
        # The index frees its coarse quantiser: Python must not free it too.
        index.own_fields = True
        coarse.this.disown()
        index.cp.seed = seed + 1
        index.cp.min_points_per_centroid = 1  # no warning on small sets
        if kind == "ivf_pq":
            index.pq.cp.min_points_per_centroid = 1
        sample = min(size, 40 * cells)
        chosen = np.random.default_rng(seed).choice(size, sample, replace=False)
        index.train(vectors[np.sort(chosen)])
    index.add(vectors)
    return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingDependencyError("faiss-cpu", "ann", "searching an index") from None
    return faiss
