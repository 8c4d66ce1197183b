"""``python -m nextedge``."""

from nextedge.cli.main import main

main()
