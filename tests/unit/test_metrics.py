"""The evaluation package against trec_eval (by ir-measures), scikit-learn and slow loops."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import warnings
from typing import Any

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from nextedge.errors import InputError
from nextedge.evaluation import bootstrap
from nextedge.evaluation.beyond_accuracy import (
    Catalogue,
    category_diversity,
    gini,
    list_mean,
    measure_beyond_accuracy,
    popularity_percentile,
    self_information,
)
from nextedge.evaluation.bootstrap import (
    BootstrapConfig,
    Interval,
    PairedInterval,
    bootstrap_interval,
    bootstrap_intervals,
    paired_bootstrap,
)
from nextedge.evaluation.candidate_recall import (
    PositivePairs,
    measure_candidate_recall,
    positive_hits,
)
from nextedge.evaluation.classification import (
    auc,
    classification_metrics,
    expected_calibration_error,
)
from nextedge.evaluation.ranking import RankMetrics, hit_matrix, rank_metrics
from nextedge.evaluation.report import (
    Comparison,
    EvaluationReport,
    Protocol,
    compare,
    system_report,
)
from nextedge.evaluation.slices import degree_bucket, slice_metrics
from nextedge.evaluation.tables import (
    candidate_recall_rows,
    comparison_rows,
    fit,
    report_rows,
    slice_rows,
    system_rows,
)

FEW = BootstrapConfig(resamples=50, seed=3)
Lists = list[list[int]]


def ragged(lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.concatenate(([0], np.cumsum([len(each) for each in lists]))).astype(np.int64)
    return indptr, np.array([value for each in lists for value in each], dtype=np.int32)


def measured(candidates: Lists, positives: Lists, k: int) -> RankMetrics:
    return rank_metrics(*ragged(candidates), *ragged(positives), k=k)


identifiers = st.lists(st.integers(0, 14), unique=True, max_size=12)
queries = st.lists(st.tuples(identifiers, identifiers.map(sorted)), min_size=1, max_size=8)


# Rank metrics


def trec_eval(candidates: Lists, positives: Lists, k: int) -> dict[str, list[float]]:
    """Per-query values of queries that have positives; trec_eval's AP divides by all of them."""
    from ir_measures import AP, RR, P, R, Success, nDCG

    kept = [q for q, each in enumerate(positives) if each]
    qrels = [ir_measures.Qrel(str(q), str(p), 1) for q in kept for p in positives[q]]
    run = [
        ir_measures.ScoredDoc(str(q), str(c), -float(rank))
        for q in kept
        for rank, c in enumerate(candidates[q])
    ]
    names = {
        f"ndcg@{k}": nDCG @ k,
        f"recall@{k}": R @ k,
        f"hit_rate@{k}": Success @ k,
        f"mrr@{k}": RR @ k,
        f"precision@{k}": P @ k,
        f"map@{k}": AP @ k,
    }
    value = {
        (str(m.measure), m.query_id): m.value
        for m in ir_measures.iter_calc(list(names.values()), qrels, run)
    }
    found = {n: [value.get((str(m), str(q)), 0.0) for q in kept] for n, m in names.items()}
    scale = [len(positives[q]) / min(k, len(positives[q])) for q in kept]
    found[f"map@{k}"] = [ap * s for ap, s in zip(found[f"map@{k}"], scale, strict=True)]
    return found


def slow_metrics(candidates: list[int], positives: list[int], k: int) -> list[float]:
    """The definitions, one query, in the order of RankMetrics."""
    hits = [candidate in positives for candidate in candidates[:k]]
    ideal = min(k, len(positives))
    gain = sum(1 / math.log2(rank + 2) for rank, hit in enumerate(hits) if hit)
    best = sum(1 / math.log2(rank + 2) for rank in range(ideal))
    first = next((1 / (rank + 1) for rank, hit in enumerate(hits) if hit), 0.0)
    precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit]
    return [
        gain / best,
        sum(hits) / len(positives),
        float(any(hits)),
        first,
        sum(hits) / k,
        sum(precisions) / ideal,
    ]


@settings(max_examples=80, deadline=None)
@given(queries, st.integers(1, 16))
def test_rank_metrics_equal_trec_eval_and_the_definitions(
    pairs: list[tuple[list[int], list[int]]], k: int
) -> None:
    candidates, positives = [c for c, _ in pairs], [p for _, p in pairs]
    found = measured(candidates, positives, k).named()
    has_positives = [bool(each) for each in positives]
    for name, expected in trec_eval(candidates, positives, k).items():
        np.testing.assert_allclose(found[name][has_positives], expected, rtol=0, atol=1e-9)
        assert np.isnan(found[name][np.logical_not(has_positives)]).all()
    for query, (candidate, positive) in enumerate(pairs):
        if positive:
            values = [column[query] for column in found.values()]
            assert values == pytest.approx(slow_metrics(candidate, positive, k), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(queries, st.integers(1, 16))
def test_hits_equal_membership(pairs: list[tuple[list[int], list[int]]], k: int) -> None:
    candidates, positives = [c for c, _ in pairs], [p for _, p in pairs]
    expected = [[c in p for c in cs] for cs, p in zip(candidates, positives, strict=True)]
    matrix = hit_matrix(*ragged(candidates), *ragged(positives), k)
    assert matrix.tolist() == [(row + [False] * k)[:k] for row in expected]


def test_blocks_of_queries_give_the_same_as_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    candidates = [random.permutation(30)[: random.integers(0, 20)].tolist() for _ in range(57)]
    positives = [sorted(random.permutation(30)[:4].tolist()) for _ in range(57)]
    whole = measured(candidates, positives, 10).named()
    hits = positive_hits(*ragged(candidates), PositivePairs(*ragged(positives)))
    monkeypatch.setattr("nextedge.evaluation.ranking.BLOCK_VALUES", 70)
    monkeypatch.setattr("nextedge.evaluation._ragged.query_blocks.__defaults__", (70,))
    for name, column in measured(candidates, positives, 10).named().items():
        np.testing.assert_array_equal(column, whole[name])
    assert hits.any()
    again = positive_hits(*ragged(candidates), PositivePairs(*ragged(positives)))
    np.testing.assert_array_equal(again, hits)


def test_all_hit_no_hit_and_a_list_shorter_than_k() -> None:
    found = measured([[3, 1], [9, 8], []], [[1, 3], [0], [5]], 5)
    assert [column.tolist() for column in found.named().values()] == [
        [1.0, 0.0, 0.0],
        [1.0, 0.0, 0.0],
        [1.0, 0.0, 0.0],
        [1.0, 0.0, 0.0],
        [0.4, 0.0, 0.0],
        [1.0, 0.0, 0.0],
    ]


def test_recall_divides_by_all_positives_even_beyond_k() -> None:
    assert measured([[0, 1]], [[0, 1, 2, 3]], 2).recall.tolist() == [0.5]


def test_a_single_query_and_no_query() -> None:
    single = measured([[4]], [[4]], 20)
    assert set(single.mean().values()) == {1.0, 0.05}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = measured([], [], 20).mean()
        unlabelled = measured([[1, 2]], [[]], 20).mean()
    assert all(math.isnan(value) for value in (*nothing.values(), *unlabelled.values()))


@pytest.mark.parametrize(
    ("candidates", "positives", "k", "words"),
    [
        ([[1]], [[1], [2]], 5, "same|1 queries"),
        ([[1]], [[2, 1]], 5, "ascending"),
        ([[1, 1]], [[1]], 5, "twice"),
        ([[-1, 1]], [[1]], 5, "negative"),
        ([[1]], [[1]], 0, "k is 0"),
    ],
)
def test_malformed_lists_are_refused(
    candidates: Lists, positives: Lists, k: int, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        measured(candidates, positives, k)


def test_indptr_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="rise from 0"):
        rank_metrics(np.array([0, 3]), np.array([1]), *ragged([[1]]))


# Bootstrap


def test_bootstrap_is_decided_by_the_seed_and_shared_between_columns() -> None:
    values = np.random.default_rng(0).random(400)
    first = bootstrap_interval(values, seed=7)
    assert first == bootstrap_interval(values, seed=7)
    assert first != bootstrap_interval(values, seed=8)
    gaps = np.where(np.arange(400) % 3 == 0, np.nan, values)
    several = bootstrap_intervals(
        {"a": values, "gaps": gaps, "b": 2 * values}, BootstrapConfig(seed=7)
    )
    assert list(several) == ["a", "gaps", "b"]
    assert dataclasses.astuple(several["a"]) == pytest.approx(dataclasses.astuple(first))
    assert several["b"].low == pytest.approx(2 * first.low)
    alone = bootstrap_interval(gaps[~np.isnan(gaps)], seed=7)
    assert dataclasses.astuple(several["gaps"]) == pytest.approx(dataclasses.astuple(alone))


def test_bootstrap_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        interval = bootstrap_interval(
            random.exponential(size=150), resamples=300, seed=trial, level=0.9
        )
        covered += interval.low <= 1.0 <= interval.high
    assert 0.84 <= covered / 300 <= 0.94


@pytest.mark.parametrize("queries", [2_000, 100_000])
def test_bootstrap_width_is_that_of_the_normal_interval(queries: int) -> None:
    values = np.random.default_rng(2).random(queries)
    interval = bootstrap_interval(values, resamples=600, seed=1)
    normal = 2 * 1.96 * values.std() / math.sqrt(queries)
    assert interval.mean == pytest.approx(values.mean(), rel=1e-12)
    assert interval.high - interval.low == pytest.approx(normal, rel=0.15)


def test_many_queries_are_dealt_into_groups_of_equal_size_to_one() -> None:
    column = np.random.default_rng(2).random(100_000)
    grouped = bootstrap._deal(np.column_stack([column, np.ones(100_000)]), np.random.default_rng(1))
    assert grouped.shape == (bootstrap.GROUPS, 2)
    assert np.ptp(grouped[:, 1]) == 1
    assert grouped.sum(axis=0).tolist() == pytest.approx([column.sum(), 100_000])


def test_bootstrap_of_one_value_constant_values_and_nothing() -> None:
    assert bootstrap_interval([0.25]) == Interval(0.25, 0.25, 0.25)
    assert bootstrap_interval(np.full(9, 2.0)) == Interval(2.0, 2.0, 2.0)
    for empty in ([], [math.nan, math.nan]):
        assert all(np.isnan(dataclasses.astuple(bootstrap_interval(empty))))


@pytest.mark.parametrize(("setting", "value"), [("resamples", 0), ("level", 1.0), ("level", 95)])
def test_bootstrap_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    config: dict[str, Any] = {setting: value}
    with pytest.raises(InputError, match=setting):
        bootstrap_interval([1.0], **config)


def test_paired_bootstrap_sees_what_unpaired_intervals_hide() -> None:
    random = np.random.default_rng(4)
    hardness = random.random(500)
    b = hardness + 0.01 * random.standard_normal(500)
    a = 1.02 * hardness + 0.01 * random.standard_normal(500)
    paired = paired_bootstrap(a, b, seed=5)
    assert paired.difference.low > 0 and paired.ratio.low > 1
    assert paired.difference.mean == pytest.approx(a.mean() - b.mean())
    assert paired.ratio.mean == pytest.approx(a.mean() / b.mean())
    one, other = (bootstrap_interval(each, seed=5) for each in (a, b))
    assert one.low < other.high


def test_paired_bootstrap_of_equal_missing_and_zero_systems() -> None:
    values = np.array([0.1, 0.5, math.nan, 0.9])
    same = paired_bootstrap(values, values)
    assert same == PairedInterval(Interval(0.0, 0.0, 0.0), Interval(1.0, 1.0, 1.0))
    hidden = paired_bootstrap([1.0, math.nan, 3.0], [1.0, 50.0, 3.0])
    assert hidden.ratio.mean == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beaten = paired_bootstrap([1.0, 1.0], [0.0, 0.0])
        assert beaten.ratio == Interval(math.inf, math.inf, math.inf)
        nothing = paired_bootstrap([], [])
    assert math.isnan(nothing.difference.mean)
    with pytest.raises(InputError, match="same queries"):
        paired_bootstrap([1.0], [1.0, 2.0])


# Classification

labelled = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0]) | st.floats(0, 1)),
    min_size=2,
    max_size=60,
).filter(lambda pairs: len({label for label, _ in pairs}) == 2)


@settings(max_examples=100, deadline=None)
@given(labelled)
def test_classification_equals_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    label, probability = (np.array(column) for column in zip(*pairs, strict=True))
    found = classification_metrics(label, probability)
    assert found.auc == pytest.approx(sklearn_metrics.roc_auc_score(label, probability), abs=1e-12)
    assert found.log_loss == pytest.approx(sklearn_metrics.log_loss(label, probability), abs=1e-9)
    brier = sklearn_metrics.brier_score_loss(label, probability)
    assert found.brier == pytest.approx(brier, abs=1e-12)
    assert (found.pairs, found.positives) == (len(pairs), label.sum())


@settings(max_examples=100, deadline=None)
@given(labelled, st.integers(0, 2**32 - 1))
def test_weighted_classification_equals_scikit_learn(
    pairs: list[tuple[bool, float]], seed: int
) -> None:
    label, probability = (np.array(column) for column in zip(*pairs, strict=True))
    weight = np.random.default_rng(seed).exponential(size=len(pairs)) + 0.01
    found = classification_metrics(label, probability, weight)
    expected = {
        "auc": sklearn_metrics.roc_auc_score(label, probability, sample_weight=weight),
        "log_loss": sklearn_metrics.log_loss(label, probability, sample_weight=weight),
        "brier": sklearn_metrics.brier_score_loss(label, probability, sample_weight=weight),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9), name


@settings(max_examples=60, deadline=None)
@given(labelled, st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_a_whole_weight_equals_that_many_copies_of_the_pair(
    pairs: list[tuple[bool, float]], seed: int, bins: int
) -> None:
    label, probability = (np.array(column) for column in zip(*pairs, strict=True))
    weight = np.random.default_rng(seed).integers(0, 4, size=len(pairs))
    copies = np.repeat(label, weight), np.repeat(probability, weight)
    weighted = classification_metrics(label, probability, weight, bins=bins)
    copied = classification_metrics(*copies, bins=bins)
    for name in ("auc", "log_loss", "brier"):
        expected = pytest.approx(getattr(copied, name), abs=1e-12, nan_ok=True)
        assert getattr(weighted, name) == expected, name
    # A bin may end inside a pair's copies, not inside the pair: equal where pairs are ties.
    tied = np.round(probability)
    error = expected_calibration_error(label, tied, weight, bins=1)
    again = expected_calibration_error(copies[0], np.round(copies[1]), bins=1)
    assert error == pytest.approx(again, abs=1e-12, nan_ok=True)


def test_calibration_bins_hold_equal_weights() -> None:
    probability, label = [0.1, 0.2, 0.6, 0.9], [0, 1, 0, 1]
    found = expected_calibration_error(label, probability, [3, 1, 1, 3], bins=2)
    assert found == pytest.approx((abs(0.3 + 0.2 - 1) + abs(0.6 + 2.7 - 3)) / 8)
    uneven = expected_calibration_error(label, probability, [1, 1, 1, 3], bins=2)
    assert uneven == pytest.approx((abs(0.1 - 0.8 + 0.6) + abs(2.7 - 3)) / 6)


@pytest.mark.parametrize(
    ("weight", "words"), [([1.0], "shape"), ([1.0, -1.0], "negative"), ([1.0, math.nan], "NaN")]
)
def test_malformed_weights_are_refused(weight: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        auc([0, 1], [0.1, 0.2], weight)


def test_a_class_of_no_weight_is_no_class() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics([0, 1], [0.1, 0.2], [0.0, 1.0])
    assert math.isnan(found.auc) and math.isnan(found.calibration_error)
    assert (found.pairs, found.positives) == (1, 1)


def test_calibration_error_by_hand_with_ties_and_in_any_order() -> None:
    probability = np.array([0.1, 0.1, 0.3, 0.3, 0.8, 0.8])
    label = np.array([0, 0, 0, 1, 1, 1])
    by_bin = (abs(0.1 - 0.0) + abs(0.3 - 0.5) + abs(0.8 - 1.0)) / 3
    found = expected_calibration_error(label, probability, bins=3)
    assert found == pytest.approx(by_bin)
    whole = expected_calibration_error(label, probability, bins=1)
    assert whole == pytest.approx(abs(probability.mean() - label.mean()))
    tied = np.full(6, 0.5)
    for order in itertools.permutations(label):
        assert expected_calibration_error(order, tied, bins=3) == 0.0


@settings(max_examples=60, deadline=None)
@given(labelled, st.integers(1, 20))
def test_calibration_error_equals_a_loop_over_bins(
    pairs: list[tuple[bool, float]], bins: int
) -> None:
    ordered = sorted(pairs, key=lambda pair: pair[1])
    expected, taken = 0.0, 0
    for number in range(1, bins + 1):
        end = max(taken, number * len(ordered) // bins)
        while 0 < end < len(ordered) and end > taken and ordered[end][1] == ordered[end - 1][1]:
            end += 1
        expected += abs(sum(probability - label for label, probability in ordered[taken:end]))
        taken = end
    found = expected_calibration_error(*zip(*pairs, strict=True), bins=bins)
    assert found == pytest.approx(expected / len(ordered), abs=1e-12)


def test_calibrated_probabilities_have_a_small_error_and_shifted_ones_their_shift() -> None:
    random = np.random.default_rng(6)
    probability = random.random(60_000) * 0.5
    label = random.random(60_000) < probability
    assert expected_calibration_error(label, probability) < 0.01
    shifted = expected_calibration_error(label, probability + 0.2)
    assert shifted == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("label", [[], [0, 0, 0], [1, 1]])
def test_labels_of_one_class_give_nan_without_a_warning(label: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(label, np.linspace(0, 1, len(label)))
    for value in (found.auc, found.log_loss, found.calibration_error, found.brier):
        assert math.isnan(value)


@pytest.mark.parametrize(
    ("label", "probability", "words"),
    [
        ([0, 1], [0.5, 1.5], "0 to 1"),
        ([0, 2], [0.5, 0.5], "0 and 1"),
        ([0, 1], [0.5, math.nan], "NaN"),
        ([0], [0.5, 0.5], "one length"),
    ],
)
def test_labels_and_probabilities_out_of_range_are_refused(
    label: list[int], probability: list[float], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        classification_metrics(label, probability)


# Beyond accuracy

ten_items = st.lists(st.lists(st.integers(0, 9), unique=True, max_size=8), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(ten_items, st.integers(0, 2**32 - 1))
def test_diversity_equals_a_loop_over_pairs(lists: Lists, seed: int) -> None:
    random = np.random.default_rng(seed)
    category = random.integers(-1, 3, size=10)
    by_category = category_diversity(*ragged(lists), category)
    for query, items in enumerate(lists):
        pairs = list(itertools.combinations(items, 2))
        if not pairs:
            assert np.isnan(by_category[query])
            continue
        same = [category[i] == category[j] and category[i] >= 0 for i, j in pairs]
        assert by_category[query] == pytest.approx(1 - np.mean(same))


def test_novelty_percentiles_and_gini_by_hand() -> None:
    popularity = np.array([6, 0, 0, 6])
    np.testing.assert_allclose(
        self_information(popularity), [-math.log2(7 / 16), 4, 4, -math.log2(7 / 16)]
    )
    assert popularity_percentile(popularity).tolist() == [0.75, 0.25, 0.25, 0.75]
    assert gini(np.array([5, 5, 5])) == 0.0
    assert gini(np.array([0, 0, 0, 8])) == 0.75
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    means = list_mean(*ragged([[0, 1], [], [1]]), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(means, [1.5, math.nan, 2.0])


def test_beyond_accuracy_joins_its_parts_over_the_first_k() -> None:
    lists = ragged([[0, 1, 3], [0, 2, 3], []])
    popularity, category = np.array([9, 3, 1, 0]), np.array([0, 0, 1, 1])
    catalogue = Catalogue(popularity, category)
    found = measure_beyond_accuracy(lists, ragged([[3], [], [1]]), catalogue, k=2, config=FEW)
    assert found.catalogue_coverage == 0.75
    assert found.intra_list_diversity.mean == 0.5
    assert found.popularity_recommended.mean == pytest.approx((0.75 + 0.625) / 2)
    assert found.popularity_positive.mean == pytest.approx((0.125 + 0.625) / 2)
    assert found.popularity_bias.mean == pytest.approx(0.75 - 0.125)
    assert found.exposure_gini == gini(np.array([2, 1, 1, 0]))
    with pytest.raises(InputError, match="catalogue ends at 3"):
        measure_beyond_accuracy(ragged([[4]]), ragged([[]]), catalogue)


def test_beyond_accuracy_of_nothing_is_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure_beyond_accuracy(
            ragged([]), ragged([]), Catalogue(np.array([], dtype=np.int64)), config=FEW
        )
    assert math.isnan(found.catalogue_coverage) and math.isnan(found.exposure_gini)
    assert math.isnan(found.intra_list_diversity.mean) and math.isnan(found.novelty.mean)


# Candidate recall

SOURCES = {"two_hop": ragged([[1, 2], [], [5]]), "popular": ragged([[2, 7], [7], [0]])}
PAIRS = PositivePairs(
    *ragged([[1, 2, 9], [7], []]),
    common_neighbours=np.array([3, 1, 0, 0]),
    degree=np.array([4, 0, 100]),
)


def test_candidate_recall_by_source_neighbours_and_degree() -> None:
    found = measure_candidate_recall(SOURCES, PAIRS, FEW)
    table = {
        (row.breakdown, row.bucket): (
            row.positives,
            *(row.recall[name].mean for name in ("two_hop", "popular", "united")),
        )
        for row in found.rows
    }
    assert table["all", "all"] == (4, 0.5, 0.5, 0.75)
    assert table["common_neighbours", "0"] == (2, 0.0, 0.5, 0.5)
    assert table["common_neighbours", "1"] == (1, 1.0, 1.0, 1.0)
    assert table["common_neighbours", "2+"] == (1, 1.0, 0.0, 1.0)
    assert table["degree", "0"] == (1, 0.0, 1.0, 1.0)
    assert table["degree", "1-4"][0] == 3
    assert table["degree", "1-4"][1:] == pytest.approx((2 / 3, 1 / 3, 2 / 3))
    assert table["degree", "100+"][0] == 0 and math.isnan(table["degree", "100+"][1])
    assert len(table) == 1 + 3 + 5
    assert found.only == {"two_hop": 0.25, "popular": 0.25}
    assert found.candidates_per_query == {"two_hop": 1.0, "popular": 4 / 3}


def test_hits_of_positives_by_source() -> None:
    hits = [positive_hits(*lists, PAIRS).tolist() for lists in SOURCES.values()]
    assert hits == [[True, True, False, False], [False, True, False, True]]


def test_candidate_recall_without_positives_or_with_a_reserved_name() -> None:
    nothing = measure_candidate_recall(SOURCES, PositivePairs(*ragged([[], [], []])), FEW)
    assert math.isnan(nothing.rows[0].recall["united"].mean)
    with pytest.raises(InputError, match="united"):
        measure_candidate_recall({"united": SOURCES["popular"]}, PAIRS, FEW)
    with pytest.raises(InputError, match="degree"):
        PositivePairs(*ragged([[1]]), degree=np.array([1, 2]))


# Slices


def test_slices_split_at_degree_five_and_buckets_at_their_edges() -> None:
    values = {"ndcg@20": np.array([1.0, 0.0, 0.5, math.nan])}
    found = slice_metrics(values, np.array([4, 0, 5, 3]), FEW)
    assert found["cold"].queries == 2 and found["cold"].metrics["ndcg@20"].mean == 0.5
    assert found["warm"].queries == 1
    assert found["warm"].metrics["ndcg@20"] == Interval(0.5, 0.5, 0.5)
    edges = np.array([0, 1, 4, 5, 19, 20, 99, 100, 10_000])
    assert degree_bucket(edges).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(InputError, match="one of each"):
        slice_metrics(values, np.array([4]), FEW)


# The report


def example_report() -> EvaluationReport:
    candidates = [[1, 2], [7], [5]], [[2, 9], [0], [5]]
    positives = [[1, 2, 9], [7], []]
    metrics = [measured(each, positives, 20) for each in candidates]
    degree = np.array([4, 0, 100])
    one = system_report("two_hop", "source", metrics[0], degree, FEW)
    two = system_report("full line", "full_line", metrics[1], degree, FEW)
    two = dataclasses.replace(
        two,
        classification=classification_metrics([0, 0], [0.5, 0.5]),
        beyond_accuracy=measure_beyond_accuracy(
            ragged(candidates[1]), ragged(positives), Catalogue(np.arange(10)), config=FEW
        ),
    )
    versus = compare(("full line", metrics[1].ndcg), ("two_hop", metrics[0].ndcg), "ndcg@20", FEW)
    endless = Comparison("a", "b", "mrr@20", paired_bootstrap([1.0], [0.0]))
    return EvaluationReport(
        surface="people",
        protocol=Protocol("time", 20, 2, bootstrap=FEW, text="edges after the cut"),
        systems=(one, two),
        candidate_recall=measure_candidate_recall(SOURCES, PAIRS, FEW),
        comparisons=(versus, endless),
    )


def test_a_report_goes_through_strict_json_and_back() -> None:
    report = example_report()
    text = json.dumps(report.to_json(), allow_nan=False)
    again = EvaluationReport.from_json(json.loads(text))
    assert repr(again) == repr(report)
    assert json.dumps(again.to_json()) == text
    assert json.loads(text)["systems"][1]["classification"]["auc"] is None
    assert json.loads(text)["protocol"]["recall_denominator"] == "all positives of the query"
    assert (again.protocol.text, again.protocol.seed) == ("edges after the cut", 3)
    assert list(again.systems[0].metrics)[:2] == ["ndcg@20", "recall@20"]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("systems", 0, "kind"), "model", "report.systems.0..kind is 'model'; expected one of"),
        (("protocol", "k"), "20", "report.protocol.k is '20'; expected int"),
        (("protocol", "seed"), 1, "report.protocol is .*; expected an object of"),
        (("systems",), {}, "report.systems is {}; expected a list"),
        (("systems", 0, "metrics", "ndcg@20", "mean"), "high", "expected a number or null"),
    ],
)
def test_an_altered_report_is_refused_by_place(
    path: tuple[Any, ...], value: object, words: str
) -> None:
    plain = json.loads(json.dumps(example_report().to_json()))
    inside = plain
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    with pytest.raises(InputError, match=words):
        EvaluationReport.from_json(plain)


def test_tables_put_main_metrics_first_and_mark_the_best() -> None:
    report = example_report()
    table = system_rows(report)
    assert table.header[:4] == ("system", "kind", "ndcg@20", "recall@20")
    assert table.best == 0 and [row[0] for row in table.rows] == ["two_hop *", "full line"]
    assert "AUC" not in table.header and "coverage" in table.header
    assert table.rows[0][table.header.index("coverage")] == "-"
    assert "seed 3" in table.title and "95% intervals of 50" in table.title
    for each in (table, slice_rows(report), candidate_recall_rows(report), comparison_rows(report)):
        assert each.rows and {len(row) for row in each.rows} == {len(each.header)}
    assert candidate_recall_rows(report).rows[0][2].startswith("0.5000 [")


def test_tables_are_cut_to_the_width_of_a_terminal_and_lose_nothing() -> None:
    report = example_report()
    whole = system_rows(report)
    parts = fit(whole)
    assert whole.width > 100 and all(part.width <= 100 for part in parts)
    assert report_rows(report) == parts[0]
    assert parts[0].header[:4] == ("system", "kind", "ndcg@20", "recall@20")
    assert [name for part in parts for name in part.header[2:]] == list(whole.header[2:])
    for place, row in enumerate(whole.rows):
        assert [cell for part in parts for cell in part.rows[place][2:]] == list(row[2:])
        assert {part.rows[place][:2] for part in parts} == {row[:2]}
    narrow = fit(whole, width=1)
    assert [len(part.header) for part in narrow] == [3] * (len(whole.header) - 2)
    for table in (slice_rows(report), candidate_recall_rows(report)):
        assert all(part.width <= 100 for part in fit(table))


def test_tables_of_an_empty_report_have_no_rows() -> None:
    bare = EvaluationReport("items", Protocol("last", 20, 0), ())
    for make in (report_rows, slice_rows, candidate_recall_rows, comparison_rows):
        assert make(bare).rows == ()
    assert fit(system_rows(bare))[0].header == ("system", "kind")
    unmeasured = system_report("popular", "source", measured([[1]], [[]], 20))
    table = report_rows(dataclasses.replace(bare, systems=(unmeasured,)))
    assert table.best is None and set(table.rows[0][2:]) == {"-"}
