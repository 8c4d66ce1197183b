"""Errors that NextEdge raises, and the exit code that each one means on the command line.

NextEdgeError (exit 1)
├── InputError (exit 2)           the input of the caller is not valid
│   ├── ConfigError               a setting is unknown, of the wrong type or out of range
│   ├── DataError                 a table or file cannot be read or breaks its schema
│   ├── UnknownUserError          a user of no release and no event
│   ├── UnknownItemError          an item or candidate of no release
│   ├── UnknownSurfaceError       a surface that is not configured or not in the release
│   ├── EventError                an event that does not fit its schema
│   ├── ContactBudgetError        a user uploads more contacts than a day allows
│   └── UnknownReleaseError       no release has this id (a ReleaseError too)
├── ReleaseError                  a release is missing, altered or of another format
│   ├── NoReleaseError            nothing has been built yet
│   └── GateError                 a new release is worse than the served one
├── BuildLockedError              another build holds the lock of this state folder
├── StorageError                  a disk or log refuses to be written or read
│   ├── BucketError               an object store is not reached, refuses, or lacks an object
│   ├── StoreError                a store of values is not reached, too slow or full
│   └── LogFullError              too many events wait for their consumers
├── CorruptValueError             a stored value is cut, altered or of another format
├── LiveStateError                the event log cannot be read, so nothing is recommended
├── ShardError                    a process with a part of an index does not answer
├── ApiError                      a service refused (nextedge.client), with its problem document
├── ConnectionLostError           a service was not reached (nextedge.client)
├── MemoryBoundError              a step of a build needs more memory than the bound
├── PluginError                   a plug-in of another package cannot be loaded, or its name is taken
├── TrainingError                 a model or ranker could not be trained from this data
└── MissingDependencyError        an optional package is needed; names the `pip install`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NextEdgeError(Exception):
    """Base of every error that NextEdge raises on purpose."""

    exit_code: int = 1


class InputError(NextEdgeError):
    """The input or the usage is wrong; the message says what to change."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is unknown, of the wrong type or out of its range."""


class DataError(InputError):
    """A table or a file cannot be read, or breaks its schema."""


class UnknownUserError(InputError):
    """The user is in no release and in no event."""


class UnknownItemError(InputError):
    """The item is in no release."""


class UnknownSurfaceError(InputError):
    """The surface is not configured, or the release was built without it."""


class EventError(InputError):
    """An event does not fit its schema."""


class ContactBudgetError(InputError):
    """A user has uploaded as many contacts as a day allows."""


class ReleaseError(NextEdgeError):
    """A release is missing, altered, or of a format that this version cannot read."""


class NoReleaseError(ReleaseError):
    """No release has been built and promoted yet."""


class GateError(ReleaseError):
    """A new release is worse than the served one, or lacks a surface of it."""


class UnknownReleaseError(InputError, ReleaseError):
    """No release has this id."""


class BuildLockedError(NextEdgeError):
    """Another process is building into the same state folder."""


class StorageError(NextEdgeError):
    """The disk is full, or refuses to be written."""


class BucketError(StorageError):
    """An object store is not reached, refuses, or lacks an object.

    ``passing``: the same request may succeed later.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class StoreError(StorageError):
    """A store of values is not reached, is too slow, refuses or is full."""


class LogFullError(StorageError):
    """Too many events wait for their consumers; try again later."""

    def __init__(self, message: str, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class CorruptValueError(NextEdgeError):
    """A stored value is cut, altered, or of a format that this version cannot read."""


class LiveStateError(NextEdgeError):
    """The event log cannot be read, so blocks and opt-outs since the build are unknown."""


class ShardError(NextEdgeError):
    """A process with a part of an index does not answer in time."""


class MemoryBoundError(NextEdgeError):
    """A step of a build would need more memory than the bound; raised before it starts."""


class PluginError(NextEdgeError):
    """A plug-in of another package cannot be loaded, or has a name that is taken."""


class TrainingError(NextEdgeError):
    """A model could not be trained from this data."""


class TooLittleDataError(TrainingError):
    """There is too little data to train a model; the ranking pipeline goes without it."""


class IndexRecallError(NextEdgeError):
    """A nearest-neighbour index has too low a recall; the build fails before it publishes."""


class MissingDependencyError(NextEdgeError):
    """An optional package is not installed; the message names the ``pip install``."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"run: pip install 'nextedge[{extra}]'"
        )


def nearest(given: str, valid: Iterable[str]) -> str:
    """A hint with the valid word nearest to ``given``, and all valid words.

    >>> nearest("usrs", ["users", "items"])
    "did you mean 'users'? valid: items, users"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    listed = "valid: " + (", ".join(names) if names else "none")
    return f"did you mean {close[0]!r}? {listed}" if close else listed
