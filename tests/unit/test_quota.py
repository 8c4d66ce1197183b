"""Quotas and keys that several processes change at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nextedge.api.keys import ApiKeys
from nextedge.api.quota import Quota
from nextedge.config import ServingConfig


def allowed(quota: Quota, now: float, tries: int = 50) -> int:
    return sum(quota.wait(now) == 0 for _ in range(tries))


def test_a_bucket_empties_and_fills(tmp_path: Path) -> None:
    settings = ServingConfig(requests_per_second=4, burst=10)
    for path in (None, tmp_path / "quota"):
        quota = Quota(settings, path)
        assert allowed(quota, 1000.0) == 10
        assert quota.wait(1000.0) == pytest.approx(0.25)
        assert allowed(quota, 1000.24) == 0
        assert allowed(quota, 1000.25) == 1
        assert allowed(quota, 1001.25) == 4
        assert allowed(quota, 5000.0) == 10  # a long pause saves no more than the burst
        quota.close()


def test_without_a_rate_anything_goes_and_a_burst_is_a_second() -> None:
    assert allowed(Quota(ServingConfig()), 0.0) == 50
    assert allowed(Quota(ServingConfig(requests_per_second=6.5)), 0.0) == 7
    assert allowed(Quota(ServingConfig(requests_per_second=0.1)), 0.0) == 1


def run_at_once(code: str, processes: int = 4) -> list[str]:
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    outputs = [each.communicate()[0] for each in started]
    assert [each.returncode for each in started] == [0] * processes
    return outputs


def test_workers_share_a_bucket(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from nextedge.api.quota import Quota
from nextedge.config import ServingConfig
quota = Quota(ServingConfig(requests_per_second=1e-6, burst=1000), Path({str(tmp_path / "q")!r}))
print(sum(quota.wait() == 0 for _ in range(600)))
"""
    assert sum(int(each) for each in run_at_once(code)) == 1000


def test_keys_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from nextedge.api.keys import ApiKeys
for _ in range(15):
    print(ApiKeys(Path({str(tmp_path)!r})).create(("read",))[0].id)
"""
    made = [line for each in run_at_once(code) for line in each.split()]
    assert len(made) == 60
    assert sorted(key.id for key in ApiKeys(tmp_path).all()) == sorted(made)
