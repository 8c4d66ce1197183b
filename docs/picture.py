"""Draw docs/images/demo.svg: what a terminal shows of `nextedge recommend` on the demo tenant.

nextedge demo demo --users 800
python docs/picture.py demo u000383
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 136
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
  aria-label="People and items recommended to one user, each with its score, reason and sources">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
<rect width="{width}" height="{height}" rx="8" fill="#0c1a26"/>
<g transform="translate({terminal_x}, 16)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def commands(tenant: str, user: str) -> list[list[str]]:
    """The command lines whose output is drawn."""
    about = ["-c", tenant, "--user", user, "-k", "4"]
    return [
        ["nextedge", "recommend", "--surface", "people", *about],
        ["nextedge", "recommend", "--surface", "items", *about],
    ]


def main() -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    for command in commands(*sys.argv[1:3]):
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        console.print(Text("$ " + " ".join(command), style="bold #7fd0ff"))
        for line in run.stdout.splitlines():
            console.print(Text(line.rstrip(), style="#e6edf3"), no_wrap=True, crop=True)
    drawn = console.export_svg(title="", code_format=SVG, unique_id="demo")
    (Path(__file__).parent / "images" / "demo.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
