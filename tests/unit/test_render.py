"""What the command line prints: ids, names and paths as they are, whatever is in them."""

from __future__ import annotations

import pytest

from nextedge.cli import render


@pytest.mark.parametrize(
    "text", ["127.0.0.1:-1: taken", ":smile:", "[bold]x[/bold]", "[c]onnections.csv"]
)
def test_text_is_printed_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    render.out.print(text)
    render.table(text, ("id",), [(text,)])
    assert capsys.readouterr().out.count(text) == 3
