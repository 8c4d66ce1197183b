"""The generated pages of docs/reference: settings and commands.

    python docs/reference.py

A test holds that the committed pages are what this writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from nextedge.cli.main import app
from nextedge.cli.settings import Section, sections, toml_value
from nextedge.config import Config

HOME = Path(__file__).parent / "reference"


def settings() -> str:
    """Every setting of ``nextedge.toml``: valid values, default and description."""
    lines = [
        "# Settings",
        "",
        "Look up a setting of `nextedge.toml`: its valid values, its default, and what it does.",
        "`nextedge init DIR` writes a file with all of them. `nextedge check` refuses unknown ones.",
        "",
        "In a section's name, `people` stands for any surface, `two_hop` for any candidate source,",
        "and `mobile` for any context of a request.",
    ]
    for section in sections(Config):
        lines += ["", *_section(section)]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"## `[{section.name}]`" if section.name else "## The top of the file"
    yield ""
    yield section.description.partition("\n\n")[0].replace("``", "`").replace("\n", " ")
    if section.settings:
        yield from ("", "| setting | values | default | description |", "| --- | --- | --- | --- |")
    for setting in section.settings:
        default = "" if setting.default is None else f"`{toml_value(setting.default)}`"
        text = setting.description.replace("``", "`")
        cells = (f"`{setting.name}`", setting.type, default, text)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def commands() -> str:
    """Every command with its help."""
    lines = [
        "# Commands",
        "",
        "Look up a command and its options. `nextedge COMMAND --help` prints the same.",
        "",
        "Results go to stdout, progress and messages to stderr. A command exits 0 when it is done,",
        "1 when it fails, and 2 for wrong input or usage.",
    ]
    for path, help_text in _helps(get_command(app), ("nextedge",), None):
        lines += ["", f"## {' '.join(path)}", "", "```text", help_text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _helps(
    command: Any, path: tuple[str, ...], parent: Any
) -> Iterator[tuple[tuple[str, ...], str]]:
    context = type(command).context_class(
        command,
        info_name=path[-1],
        parent=parent,
        terminal_width=80,
        max_content_width=80,
        help_option_names=["-h", "--help"],
    )
    yield path, command.get_help(context)
    for name, child in getattr(command, "commands", {}).items():
        yield from _helps(child, (*path, name), context)


PAGES = {"settings.md": settings, "commands.md": commands}

if __name__ == "__main__":
    HOME.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (HOME / name).write_text(page(), encoding="utf-8")
