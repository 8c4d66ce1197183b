"""Id maps, graphs, merging and the windows of history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nextedge.build.time_split.split import choose_method, label_windows
from nextedge.config import SplitConfig
from nextedge.data.ids import IdMap
from nextedge.graph.csr import Graph, build_graph
from nextedge.graph.propagate import SparseRows, pair_products, top_products
from nextedge.retrieval.merge import merge_candidates
from nextedge.types import Candidates


@pytest.mark.parametrize("values", [[9, -3, 5], ["b", "中", "é", "a", "😀"]])
def test_id_map_round_trip(values: list[int | str], tmp_path: Path) -> None:
    IdMap(pa.array(values)).save(tmp_path / "ids.arrow")
    ids = IdMap.load(tmp_path / "ids.arrow")
    places = ids.positions(values)
    assert ids.identifiers(places).to_pylist() == values
    assert [ids.position(value) for value in values] == places.tolist()
    many = values * 30  # beyond the size where one join serves all
    assert ids.positions(many).tolist() == places.tolist() * 30
    assert ids.positions(["absent"]).tolist() == [-1]


def test_graph_merges_repeats(tmp_path: Path) -> None:
    source, target = np.array([1, 0, 1], np.int32), np.array([2, 1, 2], np.int32)
    graph = build_graph(source, target, 3, 3, None, np.array([5, 6, 7]))
    graph.save(tmp_path)
    loaded = Graph.load(tmp_path)
    assert loaded.row(1).tolist() == [2]
    assert (loaded.weight.tolist(), loaded.first.tolist(), loaded.last.tolist()) == (
        [1.0, 2.0],
        [6, 5],
        [6, 7],
    )
    assert loaded.reverse.row(2).tolist() == [1]
    assert loaded.contains(
        np.array([1, 1, -1], np.int32), np.array([2, 0, 2], np.int32)
    ).tolist() == [True, False, False]


def test_products_equal_dense() -> None:
    random = np.random.default_rng(1)
    left, right = (
        random.random((20, 30)) * (random.random((20, 30)) < 0.2),
        random.random((30, 25)) * (random.random((30, 25)) < 0.2),
    )

    def sparse(dense: np.ndarray) -> SparseRows:
        row, column = np.nonzero(dense)
        indptr = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=len(dense)))))
        values = dense[row, column].astype(np.float32)
        return SparseRows(indptr, column.astype(np.int32), values, dense.shape[1])

    none = np.zeros(21, np.int64), np.zeros(0, np.int32)
    found = top_products(sparse(left), sparse(right), 5, none)
    dense = left @ right
    for query, rows in enumerate(found.rows()):
        best = np.sort(dense[query][dense[query] > 0])[::-1][:5]
        np.testing.assert_allclose(found.columns["score"][rows], best, rtol=1e-5)
    pairs = pair_products(
        sparse(left), sparse(right), np.arange(21) * 25, np.tile(np.arange(25, dtype=np.int32), 20)
    )
    np.testing.assert_allclose(pairs.reshape(20, 25), dense, rtol=1e-4, atol=1e-6)


def test_zero_weights_do_not_overflow() -> None:
    rows = SparseRows(np.array([0, 400]), np.zeros(400, np.int32), np.zeros(400, np.float32), 1)
    matrix = SparseRows(np.array([0, 3]), np.arange(3, dtype=np.int32), np.ones(3, np.float32), 3)
    none = np.zeros(2, np.int64), np.zeros(0, np.int32)
    assert len(top_products(rows, matrix, 5, none)) == 0


def test_merge_keeps_every_score_and_rank() -> None:
    one = Candidates(
        np.array([0, 2]), np.array([4, 7], np.int32), {"score": np.array([9.0, 1.0], np.float32)}
    )
    two = Candidates(
        np.array([0, 2]), np.array([7, 5], np.int32), {"score": np.array([0.5, 0.4], np.float32)}
    )
    known = np.ones(8, bool)
    known[5] = False
    merged = merge_candidates({"one": one, "two": two}, known, 10)
    assert merged.candidate.tolist() == [7, 4]  # in both, so ahead; 5 is not known
    assert merged.columns["one_rank"].tolist() == [2, 1]
    assert merged.columns["two_rank"][0] == 1
    assert np.isnan(merged.columns["two_score"][1])


def test_time_windows_never_overlap() -> None:
    first = np.random.default_rng(0).integers(10**15, 2 * 10**15, 5000)
    split = SplitConfig()
    assert choose_method(split, first)[0] == "time"
    windows = label_windows(split, "time", np.zeros(5000, np.int64), first)
    for window in windows:
        assert not (window.graph & window.labels).any()
        assert window.as_of is not None
        assert first[window.graph].max() <= window.as_of < first[window.labels].min()
    held = np.sum([window.labels for window in windows], axis=0)
    assert held.max() == 1
    assert windows[-1].name == "evaluation"


def test_without_times_the_split_is_random_and_says_so() -> None:
    method, why = choose_method(SplitConfig(), np.zeros(100, np.int64))
    assert (method, "no timestamps" in why) == ("random", True)
    windows = label_windows(
        SplitConfig(), "random", np.zeros(100, np.int64), np.zeros(100, np.int64)
    )
    evaluation = windows[-1].labels
    assert all(not (window.graph & evaluation).any() for window in windows[:-1])


def test_places_in_an_order_hold_back_the_latest() -> None:
    query, first = np.array([0, 0, 0, 1]), np.array([1, 2, 3, 1]) * 1_000_000
    assert choose_method(SplitConfig(), first)[0] == "last"
    evaluation = label_windows(SplitConfig(), "last", query, first)[-1]
    assert evaluation.labels.tolist() == [False, False, True, True]


def test_many_random_pairs_share_one_graph_and_divide_their_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nextedge.build.time_split.split.SHARED_FROM", 500_000)
    query = np.repeat(np.arange(5000, dtype=np.int64), 110)
    first = np.zeros(len(query), np.int64)
    windows = label_windows(SplitConfig(), "random", query, first, divide=True)
    *labels, evaluation = windows
    assert all(window.graph is labels[0].graph for window in labels)
    owner = np.full(5000, -1)
    for number, window in enumerate(labels):
        assert not (window.labels & (window.graph | evaluation.labels)).any()
        mine = np.unique(query[window.labels])
        assert (owner[mine] == -1).all()
        owner[mine] = number
        assert 1000 < len(mine) < 1500
    together = np.logical_or.reduce([window.labels for window in labels])
    assert together.mean() == pytest.approx(0.1, abs=1e-3)
    assert (labels[0].graph | together).sum() == (~evaluation.labels).sum()
    apart = label_windows(SplitConfig(), "random", query, first)
    assert apart[0].graph is not apart[1].graph
