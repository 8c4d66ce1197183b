"""What is served: which release, what was served before, and which one is on trial."""

from __future__ import annotations

from dataclasses import dataclass, replace

HISTORY_KEPT = 100


@dataclass(frozen=True)
class Trial:
    """A release beside the served one, for a share of the users."""

    name: str
    release: str
    share: float


@dataclass(frozen=True)
class Pointers:
    """The served release and those served before, the latest last."""

    current: str | None = None
    history: tuple[str, ...] = ()

    def promoted(self, release_id: str) -> Pointers:
        """With another release served from now on."""
        earlier = [name for name in self.history if name != release_id]
        return Pointers(release_id, tuple([*earlier, release_id][-HISTORY_KEPT:]))

    def replaced(self, old: str, new: str) -> Pointers:
        """With one release wherever another stood."""
        history = tuple(new if name == old else name for name in self.history)
        return replace(self, current=new if self.current == old else self.current, history=history)
