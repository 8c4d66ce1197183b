"""Cursors say what was shown and for whom, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextedge.errors import InputError
from nextedge.serving.cursor import Cursor
from nextedge.types import MOST_SHOWN

POSITIONS = st.sets(st.integers(0, 2**31 - 1), max_size=200)


@given(POSITIONS, st.text(max_size=20), st.sampled_from(["people", "items"]))
def test_what_was_shown_comes_back(shown: set[int], user: str, surface: str) -> None:
    text = Cursor("20260203-040506", tuple(shown)).encode(user, surface)
    assert Cursor.decode(text, user, surface) == Cursor("20260203-040506", tuple(sorted(shown)))
    for other in ((user + "x", surface), (user, surface + "x")):
        with pytest.raises(InputError, match="another user or surface"):
            Cursor.decode(text, *other)


@given(POSITIONS, st.integers(0), st.integers(1, 255))
def test_no_altered_cursor_is_read(shown: set[int], place: int, change: int) -> None:
    text = Cursor("r", tuple(shown)).encode("u", "people")
    at = place % len(text)
    altered = text[:at] + chr(32 + (ord(text[at]) - 32 + change) % 95) + text[at + 1 :]
    try:
        read = Cursor.decode(altered, "u", "people")
    except InputError:
        return
    assert read == Cursor.decode(text, "u", "people")  # bits of base64 that carry nothing


@pytest.mark.parametrize("text", ["", "x", "AAAA", "é" * 9, "AQ" * 4000, "..", "A" * 8191])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="cursor"):
        Cursor.decode(text, "u", "people")


def test_a_thousand_positions_fit_a_query_string() -> None:
    text = Cursor("20260203-040506", tuple(range(0, 1000 * 997, 997))).encode("u", "people")
    assert len(text) < 3000
    assert len(Cursor.decode(text, "u", "people").shown) == 1000 <= MOST_SHOWN
