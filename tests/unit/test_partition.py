"""Partitions: the same everywhere, of about one size, each user in exactly one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nextedge.data.partition import Part, partition_of
from nextedge.errors import InputError

IDS = [f"u{number:06d}" for number in range(20_000)]


def test_partitions_are_what_they_always_were() -> None:
    """A change here moves every user elsewhere: what was published is then found by nobody."""
    given = ("alice", "bob", "7", 7, "ü/日本", b"key", "")
    assert [partition_of(each, 1000) for each in given] == FORMERLY


FORMERLY = [729, 842, 890, 890, 810, 77, 876]


def test_another_process_has_the_same_partitions() -> None:
    asks = (
        "from nextedge.data.partition import partition_of\n"
        "print([partition_of(f'u{n:06d}', 64) for n in range(500)])"
    )
    seeded = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    said = subprocess.run([sys.executable, "-c", asks], env=seeded, capture_output=True, check=True)
    assert said.stdout.decode().strip() == str([partition_of(each, 64) for each in IDS[:500]])


@pytest.mark.parametrize("partitions", [2, 7, 64])
def test_partitions_are_of_about_one_size(partitions: int) -> None:
    size = np.bincount([partition_of(each, partitions) for each in IDS], minlength=partitions)
    expected = len(IDS) / partitions
    assert abs(size - expected).max() < 5 * np.sqrt(expected)


def test_every_user_is_of_one_part() -> None:
    held = np.stack([Part(place, 5).holds(IDS[:1000]) for place in range(5)])
    assert (held.sum(axis=0) == 1).all()
    assert Part(0, 1).holds(IDS[:10]).all()


def test_doubling_cuts_each_part_in_two() -> None:
    for each in IDS[:200]:
        assert partition_of(each, 16) % 8 == partition_of(each, 8)


@pytest.mark.parametrize("given", ["", "3", "4/4", "-1/4", "0/0", "1/2/3", "a/b", "0/1000000"])
def test_what_is_no_part_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="counted from 0"):
        Part.parse(given, "--partition")
