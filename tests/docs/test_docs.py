"""Documentation is tested: every command and every feature has its place."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from nextedge import Recommender
from nextedge.cli.main import app
from nextedge.models.model import model_classes

HOME = Path(__file__).parents[2]


def test_readme_names_only_commands_that_exist() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"^nextedge ([a-z]+)", (HOME / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= commands


def test_every_command_says_what_it_does() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name


def test_every_feature_is_documented(tenant: Path) -> None:
    text = (HOME / "docs" / "features.md").read_text()
    for surface in Recommender(tenant).release.surfaces.values():
        for feature in surface.line.features.features:
            assert f"`{feature.name}`" in text


def test_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (HOME / "README.md").read_text()):
        assert (HOME / link).exists(), link


def test_every_model_is_documented() -> None:
    text = (HOME / "docs" / "models.md").read_text()
    for name in model_classes():
        assert f"| `{name}` |" in text
