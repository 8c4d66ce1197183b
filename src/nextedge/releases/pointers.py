"""Pointers to the served release, the releases served before, and the release on trial."""

from __future__ import annotations

from dataclasses import dataclass, replace

_MAX_HISTORY = 100


@dataclass(frozen=True)
class Trial:
    """A release that answers a share of the users beside the served one."""

    name: str
    release: str
    share: float


@dataclass(frozen=True)
class Pointers:
    """The served release and all served so far, the latest last."""

    current: str | None = None
    history: tuple[str, ...] = ()

    def promoted(self, release_id: str) -> Pointers:
        """A copy with another served release."""
        earlier = [name for name in self.history if name != release_id]
        return Pointers(release_id, tuple([*earlier, release_id][-_MAX_HISTORY:]))

    def replaced(self, old: str, new: str) -> Pointers:
        """A copy with one release in the position of another."""
        history = tuple(new if name == old else name for name in self.history)
        return replace(self, current=new if self.current == old else self.current, history=history)
