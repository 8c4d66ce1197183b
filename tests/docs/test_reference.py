"""The committed reference pages are those that the code gives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["settings.md", "commands.md"])
def test_a_reference_page_is_what_the_code_gives(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("reference", None)
    from reference import PAGES  # type: ignore[import-not-found]

    committed = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert PAGES[page]() == committed, "run: python docs/reference.py"
