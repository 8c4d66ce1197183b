"""Position bias: examination is found again from a log that was made with one."""

from __future__ import annotations

import numpy as np
import pytest

from nextedge.models.rankers.position_bias import FLOOR, PositionBias


def clicks(
    seed: int = 0, rows: int = 60_000
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A log whose list puts wanted candidates higher, but not always."""
    random = np.random.default_rng(seed)
    examination = 1.0 / np.arange(1, 9) ** 0.8
    wanted = random.beta(1, 4, 50)
    candidate = random.integers(0, 50, rows).astype(np.int32)
    place = np.clip(random.normal(7 - 10 * wanted[candidate], 2.0), 0, 7).astype(np.int32)
    taken = random.random(rows) < examination[place] * wanted[candidate]
    return place + 1, candidate, taken, examination


def test_examination_is_found_again() -> None:
    position, candidate, taken, truth = clicks()
    bias = PositionBias.fit(position, candidate, taken)
    assert bias is not None
    assert bias.positions.tolist() == list(range(1, 9))
    by_rate = np.array([taken[position == place].mean() for place in range(1, 9)])
    raw = np.abs(by_rate / by_rate.max() - truth).mean()
    assert np.abs(bias.examination - truth).mean() < 0.05
    assert np.abs(bias.examination - truth).mean() < raw / 3  # the rate alone blames the candidates


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_examination_is_found_again_where_most_is_taken(seed: int) -> None:
    """From a start above 1, which is no probability, these logs gave 12.5, 0.3 and 14.5 too much."""
    random = np.random.default_rng(seed)
    examination = np.linspace(1.0, 0.7, 8)
    wanted = random.uniform(0.95, 1.0, 50)
    candidate = random.integers(0, 50, 60_000).astype(np.int32)
    place = random.integers(0, 8, 60_000).astype(np.int32)
    taken = random.random(60_000) < examination[place] * wanted[candidate]
    assert taken.mean() > 0.8
    bias = PositionBias.fit(place + 1, candidate, taken)
    assert bias is not None
    assert np.abs(bias.examination - examination).max() < 0.03


def test_inverse_counts_what_stood_low_for_more() -> None:
    bias = PositionBias(np.array([1, 2, 5], np.int32), np.array([1.0, 0.5, FLOOR]))
    np.testing.assert_allclose(bias.inverse(np.array([1, 2, 5, -1, 3, 9])), [1, 2, 10, 1, 1, 1])


def test_nothing_is_corrected_where_the_log_cannot_tell() -> None:
    position, candidate, taken, _ = clicks(rows=300)
    assert taken.sum() < 200
    assert PositionBias.fit(position, candidate, taken) is None
    many = np.ones(5000, bool)
    one = np.ones(5000, np.int32)
    assert PositionBias.fit(one, one, many) is None
    assert PositionBias.fit(-one, one, many) is None
