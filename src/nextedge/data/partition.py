"""Partition users and keys by a hash."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from nextedge.errors import InputError
from nextedge.types import BoolArray, Identifier

MOST_PARTS = 100_000


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parts, counted from 0: ``0/4`` to ``3/4``."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str, what: str) -> Part:
        """Parse a part of the command line.

        Args:
            what: name of the option, for the error.

        Raises:
            InputError: the text is no part.

        >>> Part.parse("3/8", "--partition")
        Part(index=3, of=8)
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        index, of = map(int, match.groups()) if match else (0, 0)
        if not 0 <= index < of <= MOST_PARTS:
            raise InputError(
                f"{what} {text}: expected i/N, counted from 0, as 0/4, 1/4, 2/4 and 3/4 for all "
                "of four"
            )
        return cls(index, of)

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def holds(self, user_ids: Iterable[Identifier]) -> BoolArray:
        """bool[n]: which users are in this part."""
        return np.fromiter((partition_of(user, self.of) == self.index for user in user_ids), bool)


def partition_of(user_id: Identifier | bytes, partitions: int) -> int:
    """The partition, from 0, of a user or the key of a store.

    >>> partition_of("alice", 16), partition_of(7, 16) == partition_of("7", 16)
    (9, True)
    """
    # As text: an id has one partition as a number and as text.
    text = user_id if isinstance(user_id, bytes) else str(user_id).encode("utf-8", "surrogatepass")
    # Python's own hash of text differs from process to process.
    # A remainder: partition i of N is i and i + N of 2 N, so doubling N splits each in two.
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % partitions
