"""What a label window learns from what was shown: taken, refused, or not to be told yet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nextedge.build.training_set.impression_outcomes import ImpressionOutcomes, outcomes_between
from nextedge.build.training_set.label_rows import weigh_refusals
from nextedge.config import RankerConfig
from nextedge.schema import ACTIONS
from nextedge.types import CONNECTS, ENGAGES, Candidates

DAY = 86_400_000_000
START, END = 1000 * DAY, 1060 * DAY


def shown(
    tmp_path: Path,
    *,
    items: bool = False,
    settings: RankerConfig | None = None,
    end: int = END,
    **columns: object,
) -> ImpressionOutcomes:
    """What a window learns from impressions given column by column (times in µs)."""
    folder = tmp_path / "impressions" / ("item_id" if items else "candidate_id")
    folder.mkdir(parents=True)
    rows = len(columns["time"])  # type: ignore[arg-type]
    given = {
        "source": [3] * rows,
        "target": [5] * rows,
        "acted": [0] * rows,
        "action": [None] * rows,
        "arrived": columns["time"],
        "position": [-1] * rows,
        "propensity": [np.nan] * rows,
        **columns,
    }
    codes = [-1 if name is None else ACTIONS.index(name) for name in given["action"]]  # type: ignore[attr-defined]
    given["action"] = codes
    for name, values in given.items():
        kind = np.int64 if name in ("time", "acted", "arrived") else np.int32
        kind = np.float32 if name == "propensity" else kind  # type: ignore[assignment]
        np.save(folder / f"{name}.npy", np.asarray(values, kind))
    entities = SimpleNamespace(users=range(10), items=range(8))
    history = SimpleNamespace(directory=tmp_path, entities=entities)
    relation = ENGAGES if items else CONNECTS
    found = outcomes_between(history, relation, START, end, settings or RankerConfig())  # type: ignore[arg-type]
    assert found is not None
    return found


def outcome(
    tmp_path: Path, when: float, action: str | None, acted: float | None, items: bool = False
) -> str:
    """How one impression counts; times in days after the window's start."""
    found = shown(
        tmp_path,
        items=items,
        time=[START + int(when * DAY)],
        action=[action],
        acted=[0 if acted is None else START + int(acted * DAY)],
    )
    names = [name for name in ("taken", "refused", "open") if getattr(found, name).edges]
    assert len(names) <= 1
    if names:
        assert getattr(found, names[0]).row(3).tolist() == [5]
    return names[0] if names else "ignored"


@pytest.mark.parametrize(
    ("when", "action", "acted", "expected"),
    [
        (10, "accept", 20, "taken"),
        (10, "accept", None, "taken"),  # no time of its own: at once
        (10, "accept", 25, "refused"),  # after more than 14 days: not for this showing
        (10, None, None, "refused"),
        (10, "dismiss", 11, "refused"),
        (10, "click", 11, "refused"),  # a look at a profile is no connection
        (10, "request", 11, "open"),  # wanted by the one, not answered by the other
        (50, None, None, "open"),  # ten days before the window's end
        (50, "dismiss", 51, "refused"),
        (55, "accept", 61, "open"),  # the answer lies beyond the window
        (-1, None, None, "ignored"),
        (61, "accept", 61, "ignored"),
    ],
)
def test_outcome_of_a_person_shown(
    tmp_path: Path, when: float, action: str | None, acted: float | None, expected: str
) -> None:
    assert outcome(tmp_path, when, action, acted) == expected


def test_a_click_takes_an_item(tmp_path: Path) -> None:
    assert outcome(tmp_path, 10, "click", 10, items=True) == "taken"


def test_only_the_last_ninety_days_count(tmp_path: Path) -> None:
    time = START + np.array([1, 150]) * DAY
    found = shown(tmp_path, time=time, source=[0, 1], target=[1, 2], end=START + 200 * DAY)
    assert found.refused.degree.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_what_arrived_after_the_window_is_not_seen(tmp_path: Path) -> None:
    found = shown(tmp_path, time=[START + DAY], action=["accept"], arrived=[END + 1])
    assert found.taken.edges + found.refused.edges + found.open.edges == 0


def test_actions_count_by_their_weights_the_best_of_a_pair_wins(tmp_path: Path) -> None:
    settings = RankerConfig(action_weights={"purchase": 5, "like": 0, "dismiss": 3})
    found = shown(
        tmp_path,
        items=True,
        settings=settings,
        time=[START + DAY] * 5,
        target=[1, 1, 2, 3, 4],
        action=["click", "purchase", "like", "dismiss", None],
    )
    assert found.taken.row(3).tolist() == [1]
    assert found.taken.weight.tolist() == [5.0]
    assert found.refused.row(3).tolist() == [3, 4]  # a like of weight 0 tells nothing either way
    assert found.refused.weight.tolist() == [3.0, 1.0]


def test_an_unknown_action_weight_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="purchase"):
        RankerConfig(action_weights={"purchas": 2})
    with pytest.raises(ValueError, match="0 to 100"):
        RankerConfig(action_weights={"like": -1})


def test_what_was_taken_where_few_look_counts_for_more(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = 20_000
    position = random.integers(1, 3, rows)
    taken = random.random(rows) < np.where(position == 1, 0.2, 0.05)
    columns = {
        "time": np.full(rows, START + DAY),
        "source": np.arange(rows) % 10,
        "target": random.integers(0, 8, rows),
        "position": position,
        "action": ["accept" if each else None for each in taken],
    }
    found = shown(tmp_path / "on", **columns)
    assert found.bias is not None
    np.testing.assert_allclose(found.bias.inverse(np.array([1, 2])), [1.0, 4.0], rtol=0.15)
    assert found.taken.weight.max() > 3
    off = shown(tmp_path / "off", settings=RankerConfig(position_bias=False), **columns)
    assert off.bias is None
    assert off.taken.weight.max() == 1.0


def test_without_times_or_impressions_there_is_nothing(tmp_path: Path) -> None:
    history = SimpleNamespace(directory=tmp_path, entities=None)
    assert outcomes_between(history, CONNECTS, START, END, RankerConfig()) is None  # type: ignore[arg-type]
    assert outcomes_between(history, CONNECTS, None, None, RankerConfig()) is None  # type: ignore[arg-type]


def test_refusals_have_their_share_of_a_querys_negatives() -> None:
    candidates = Candidates(np.array([0, 5, 8]), np.arange(8, dtype=np.int32))
    label = np.float32([1, 0, 0, 0, 0, 1, 0, 0])
    weight = np.float32([1, 1, 1, 10, 10, 1, 4, 4])
    refused = np.float32([0, 1, 3, 0, 0, 0, 0, 0])  # the second counts for three
    found = weigh_refusals(candidates, label, weight, refused, RankerConfig(refused_share=0.5))
    np.testing.assert_allclose(found, [1, 5, 15, 10, 10, 1, 4, 4])
    assert found[[1, 2]].sum() == found[[3, 4]].sum()
    plain = weigh_refusals(candidates, label, weight, refused, RankerConfig(refused_share=0.0))
    np.testing.assert_allclose(plain, [1, 1, 3, 10, 10, 1, 4, 4])
