"""The command line, called in the process of the test: a process of its own costs seconds."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Exit code and output of ``nextedge`` with these arguments."""
    from nextedge.cli.main import main

    words, out, err = ["nextedge", *map(str, arguments)], io.StringIO(), io.StringIO()
    code: int | str | None = 0
    log, handler = logging.getLogger("nextedge"), logging.StreamHandler(err)
    log.addHandler(handler)  # without one Python writes warnings to stderr; pytest has its own
    with mock.patch.object(sys, "argv", words), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            log.removeHandler(handler)
    return subprocess.CompletedProcess(words, int(code or 0), out.getvalue(), err.getvalue())
