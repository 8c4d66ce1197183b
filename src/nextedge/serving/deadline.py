"""Deadlines: what there is no time for is left out, and the answer says so.

A stage cannot be stopped once it runs, so each is begun only if what it took lately fits into
what is left. A deadline is thus overrun by no more than what one stage takes longer than usual.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

_SLOWER, _FASTER = 0.1, 0.5
"""Weight of a time that is longer, or shorter, than expected: one hiccup must not count for long."""

_WAITED_SHARE = 0.5
_PATIENCE_SECONDS = 5.0


@dataclass
class StageLatency:
    """Milliseconds that each stage is expected to take, by what it took lately."""

    expected_ms: dict[str, float] = field(default_factory=dict)

    def took(self, stage: str, spent_ms: float) -> None:
        """Learn from a stage that ended."""
        before = self.expected_ms.get(stage, spent_ms)
        weight = _SLOWER if spent_ms > before else _FASTER
        self.expected_ms[stage] = before + weight * (spent_ms - before)

    def missed(self, stages: tuple[str, ...]) -> None:
        """Stages were left out: expect a little less of them, so that they are tried again."""
        for stage in stages:
            self.expected_ms[stage] = self.expected_ms.get(stage, 0.0) * (1 - _SLOWER)


@dataclass(frozen=True)
class Deadline:
    """When an answer is due.

    Attributes:
        at: in seconds of ``time.perf_counter``; None = never.
        pace: of the surface.
    """

    at: float | None
    pace: StageLatency

    @classmethod
    def after(cls, started: float, milliseconds: float | None, pace: StageLatency) -> Deadline:
        """So long after the start; None or 0: never."""
        return cls(started + milliseconds / 1e3 if milliseconds else None, pace)

    def allows(self, stage: str, *, reserve: tuple[str, ...] = ()) -> bool:
        """Whether a stage, and those for which time must be left, will probably be done by then."""
        if self.at is None:
            return True
        stages = (stage, *reserve)
        expected = sum(self.pace.expected_ms.get(name, 0.0) for name in stages)
        if time.perf_counter() + expected / 1e3 <= self.at:
            return True
        self.pace.missed(stages)
        return False

    def wait_until(self, reserve: tuple[str, ...]) -> float:
        """Until when other processes are waited for: half of the time that is to spare.

        Args:
            reserve: stages for which time must be left.

        Returns:
            Seconds of ``time.perf_counter``.
        """
        now = time.perf_counter()
        if self.at is None:
            return now + _PATIENCE_SECONDS
        expected = sum(self.pace.expected_ms.get(name, 0.0) for name in reserve)
        return now + max(0.0, self.at - expected / 1e3 - now) * _WAITED_SHARE


NO_DEADLINE = Deadline(None, StageLatency())
