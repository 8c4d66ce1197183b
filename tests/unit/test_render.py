"""What the command line prints: ids, names and paths as they are, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nextedge.cli import render
from nextedge.cli.main import app
from nextedge.errors import InputError


@pytest.mark.parametrize(
    "text", ["127.0.0.1:-1: taken", ":smile:", "[bold]x[/bold]", "[c]onnections.csv"]
)
def test_text_is_printed_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    render.say(text)
    render.table(text, ("id",), [(text,)])
    assert capsys.readouterr().out.count(text) == 3


@pytest.mark.parametrize("command", [["serve"], ["serve-shard", "0/1"]])
@pytest.mark.parametrize("port", ["-1", "99999"])
def test_a_port_that_is_none_is_a_usage_error(command: list[str], port: str) -> None:
    found = CliRunner().invoke(app, [*command, "--port", port])
    assert found.exit_code == 2
    assert "--port" in found.output


def test_a_bucket_is_no_file_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nextedge.toml").write_text("[surfaces.people]\n")
    given = ["recommend", "--surface", "people", "--all", "--out", "s3://bucket/out.parquet"]
    found = CliRunner().invoke(app, given)
    assert isinstance(found.exception, InputError)
    assert "a file on a disk" in str(found.exception)
    assert [each.name for each in tmp_path.iterdir()] == ["nextedge.toml"]
