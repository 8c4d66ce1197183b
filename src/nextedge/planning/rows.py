"""A line of the plan's table, and the shares of machine and period that are planned with."""

from __future__ import annotations

from dataclasses import dataclass

USABLE = 0.8
"""Share of a machine's memory, and of the refresh period, that is planned with."""
HOURS_A_MONTH = 730.0


@dataclass(frozen=True)
class Row:
    """One stage of the plan.

    Attributes:
        stage, grows_with: in words.
        bounded_by: what keeps its memory from growing with all of that, in words.
        beyond: times the largest size that was measured.
        core_hours: of a refresh, or of a month for what serves.
        hours: of a refresh, on ``machines``; None for what serves.
        machines: of the stage while it runs; infinite where no number of them would do.
        memory_gib: of each.
        store_gib: what it writes or keeps.
        money: a month.
        runs: how the present code runs it there, or why it cannot.
        possible: whether it can.
    """

    stage: str
    grows_with: str
    beyond: float
    core_hours: float
    hours: float | None
    machines: float
    memory_gib: float
    store_gib: float
    money: float
    runs: str
    possible: bool
    bounded_by: str = ""
