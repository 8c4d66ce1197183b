"""The documentation as a site, and the README as a newcomer reads it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
README = HOME / "README.md"
LONGEST_SENTENCE = 30
LONGEST_README = 150


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Strict: a missing page, anchor or image, or a page outside the navigation, fails."""
    folder = tmp_path_factory.mktemp("site")
    # not --quiet: warnings that are not logged are not counted either
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_has_the_python_reference(site: Path) -> None:
    assert "Recommender" in (site / "python" / "index.html").read_text()


def test_the_site_loads_nothing_from_another_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:link[^>]+rel="stylesheet"|script|img)[^>]+(?:href|src)="(https?://[^"]+)"',
            page.read_text(),
        )
        assert not loaded, page


def test_the_readme_is_short_and_its_sentences_are_too() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= LONGEST_README
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    prose = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", prose).replace("\n\n", ". ")
    for sentence in re.split(r"[.!?:;|](?:\s|$)", prose):
        words = re.findall(r"\w[\w'’.-]*", sentence)
        assert len(words) <= LONGEST_SENTENCE, sentence


def test_pages_speak_of_the_project_alone() -> None:
    """No path of one machine, in no page that is shipped."""
    for page in [README, *HOME.glob("docs/**/*.md")]:
        assert not re.search(r"(?<![\w.])/(?:root|home/\w+|tmp)/", page.read_text()), page


def test_every_decision_is_listed() -> None:
    """`python docs/generate.py` writes the list."""
    listed = (HOME / "docs" / "decisions" / "index.md").read_text()
    for page in (HOME / "docs" / "decisions").glob("0*.md"):
        assert f"({page.name})" in listed
