"""The two walks of docs/walks.md are what runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
MOST_OF_A_REQUEST, MOST_OF_A_REPEAT = 71, 11
"""Files that a reader of one request, and of its repeat, has to open: no more than now."""

sys.path.insert(0, str(HOME / "docs"))
import walks  # noqa: E402 - a script beside the page


def page(mark: str) -> list[str]:
    text = (HOME / "docs" / "walks.md").read_text(encoding="utf-8")
    part = text.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
    return re.findall(r"^\d+\. `([^`]+)`", part, re.MULTILINE)


def test_a_request_visits_the_files_of_the_walk(own_tenant: Path) -> None:
    uncached, repeat = walks.walk_of_a_request(own_tenant)
    # which sources and rules a user's list needs depends on the tenant, and so does their order
    assert uncached[:20] == page("uncached")[:20]
    assert set(uncached) == set(page("uncached"))
    assert repeat == page("repeat")
    assert len(uncached) <= MOST_OF_A_REQUEST
    assert len(repeat) <= MOST_OF_A_REPEAT


@pytest.mark.slow
def test_a_build_visits_the_steps_in_the_order_of_the_walk(tenant: Path) -> None:
    """Builds a whole tenant once more, as it traces every call of it."""
    assert walks.walk_of_a_build(tenant) == page("build")
