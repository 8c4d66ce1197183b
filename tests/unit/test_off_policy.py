"""Off-policy estimates meet a value that is known: by design, and on a real log of two policies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nextedge.errors import InputError
from nextedge.evaluation.off_policy import off_policy_value


def test_estimates_cover_the_true_value_and_the_model_narrows_them() -> None:
    random, actions, rows = np.random.default_rng(0), 5, 40_000
    rate = np.array([0.02, 0.05, 0.1, 0.2, 0.4])
    logging, other = np.array([0.4, 0.3, 0.15, 0.1, 0.05]), np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    action = random.choice(actions, rows, p=logging)
    reward = (random.random(rows) < rate[action]).astype(float)
    truth = float(rate @ other)
    guess = rate * 1.3  # a model that is wrong
    value = off_policy_value(
        reward,
        logging[action],
        other[action],
        model_logged=guess[action],
        model_evaluated=np.full(rows, guess @ other),
    )
    assert value.doubly_robust is not None
    for found in (value.ips, value.snips, value.doubly_robust):
        assert found.low < truth < found.high
    assert value.logged.high < truth  # what was logged earned less

    def width(found) -> float:  # type: ignore[no-untyped-def]
        return found.high - found.low

    assert width(value.snips) < width(value.ips)
    assert width(value.doubly_robust) < width(value.ips)
    assert 1000 < value.effective_rows < rows
    clipped = off_policy_value(reward, logging[action], other[action], clip=2.0)
    assert width(clipped.ips) < width(value.ips)
    assert clipped.effective_rows > value.effective_rows


@pytest.mark.data
@pytest.mark.parametrize("campaign", ["men", "women"])
def test_a_log_of_one_policy_tells_what_the_other_earned(data: Path, campaign: str) -> None:
    folder = data / "open_bandit_small"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    uniform, learned = (
        pl.read_parquet(folder / f"{policy}_{campaign}" / "impressions.parquet")
        for policy in ("random", "bts")
    )
    value = off_policy_value(
        learned["click"],
        learned["propensity_score"],
        np.full(len(learned), float(uniform["propensity_score"][0])),
    )
    truth = float(uniform["click"].mean())
    assert value.snips.low <= truth <= value.snips.high


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        off_policy_value([1.0], [0.0], [0.5])
    with pytest.raises(InputError, match="evaluated_propensity"):
        off_policy_value([1.0, 0.0], [0.5, 0.5], [0.5])
    with pytest.raises(InputError, match="both"):
        off_policy_value([1.0], [0.5], [0.5], model_logged=[0.1])
