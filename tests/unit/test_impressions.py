"""What a label window learns from what was shown: taken, refused, or not to be told yet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nextedge.config import RankerConfig
from nextedge.steps.entities import ACTIONS
from nextedge.steps.impressions import shown_between
from nextedge.types import CONNECTS, ENGAGES

DAY = 86_400_000_000
START, END = 1000 * DAY, 1060 * DAY


def outcome(
    tmp_path: Path, shown: float, action: str | None, acted: float | None, items: bool = False
) -> str:
    """How one impression counts; times in days after the window's start."""
    folder = tmp_path / "impressions" / ("item_id" if items else "candidate_id")
    folder.mkdir(parents=True)
    arrays = {
        "source": np.array([3], np.int32), "target": np.array([5], np.int32),
        "time": np.array([START + int(shown * DAY)]),
        "acted": np.array([0 if acted is None else START + int(acted * DAY)]),
        "action": np.array([-1 if action is None else ACTIONS.index(action)], np.int32),
    }  # fmt: skip
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    entities = SimpleNamespace(users=range(10), items=range(8))
    history = SimpleNamespace(directory=tmp_path, entities=entities)
    relation = ENGAGES if items else CONNECTS
    found = shown_between(history, relation, START, END, RankerConfig())  # type: ignore[arg-type]
    assert found is not None
    names = [name for name in ("taken", "refused", "open") if getattr(found, name).edges]
    assert len(names) <= 1
    if names:
        assert getattr(found, names[0]).row(3).tolist() == [5]
    return names[0] if names else "ignored"


@pytest.mark.parametrize(
    ("shown", "action", "acted", "expected"),
    [
        (10, "accept", 20, "taken"),
        (10, "accept", None, "taken"),  # no time of its own: at once
        (10, "accept", 25, "refused"),  # after more than 14 days: not for this showing
        (10, None, None, "refused"),
        (10, "dismiss", 11, "refused"),
        (10, "click", 11, "refused"),  # a look at a profile is no connection
        (50, None, None, "open"),  # ten days before the window's end
        (50, "dismiss", 51, "refused"),
        (55, "accept", 61, "open"),  # the answer lies beyond the window
        (-1, None, None, "ignored"),
        (61, "accept", 61, "ignored"),
    ],
)
def test_outcome_of_a_person_shown(
    tmp_path: Path, shown: float, action: str | None, acted: float | None, expected: str
) -> None:
    assert outcome(tmp_path, shown, action, acted) == expected


def test_a_click_takes_an_item(tmp_path: Path) -> None:
    assert outcome(tmp_path, 10, "click", 10, items=True) == "taken"


def test_only_the_last_ninety_days_count(tmp_path: Path) -> None:
    folder = tmp_path / "impressions" / "candidate_id"
    folder.mkdir(parents=True)
    time = START + np.array([1, 150]) * DAY
    for name, values in {
        "source": np.array([0, 1], np.int32), "target": np.array([1, 2], np.int32),
        "time": time, "acted": np.zeros(2, np.int64), "action": np.full(2, -1, np.int32),
    }.items():  # fmt: skip
        np.save(folder / f"{name}.npy", values)
    entities = SimpleNamespace(users=range(4), items=range(0))
    history = SimpleNamespace(directory=tmp_path, entities=entities)
    found = shown_between(history, CONNECTS, START, START + 200 * DAY, RankerConfig())  # type: ignore[arg-type]
    assert found is not None
    assert found.refused.degree.tolist() == [0, 1, 0, 0]


def test_without_times_or_impressions_there_is_nothing(tmp_path: Path) -> None:
    history = SimpleNamespace(directory=tmp_path, entities=None)
    assert shown_between(history, CONNECTS, START, END, RankerConfig()) is None  # type: ignore[arg-type]
    assert shown_between(history, CONNECTS, None, None, RankerConfig()) is None  # type: ignore[arg-type]
