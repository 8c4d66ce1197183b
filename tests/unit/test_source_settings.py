"""Settings of sources: typed, and refused with the nearest valid name where they are wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nextedge.config import Config, parse_config
from nextedge.errors import ConfigError
from nextedge.policy.check import check_plugins
from nextedge.retrieval.registry import source_classes


def config_of(sources: dict[str, Any], surface: str = "people") -> Config:
    tables = {"connections": "c.parquet", "interactions": "i.parquet"}
    raw = {"data": tables, "surfaces": {surface: {"sources": sources}}}
    return parse_config(raw, base=Path(), origin="nextedge.toml")


@pytest.mark.parametrize(
    ("surface", "sources", "message"),
    [
        ("people", {"two_hops": {}}, r"sources\.two_hops: no source .* did you mean 'two_hop'"),
        (
            "people",
            {"two_hop": {"options": {"min_comon": 2}}},
            r"surfaces\.people\.sources\.two_hop\.options: unknown .* did you mean 'min_common'",
        ),
        ("people", {"two_hop": {"options": {"min_common": "two"}}}, "min_common: .* valid integer"),
        ("people", {"two_hop": {"options": {"min_common": True}}}, "min_common: .* valid integer"),
        ("people", {"two_hop": {"options": {"score": "cosine"}}}, "'adamic_adar'"),
        ("people", {"random_walk": {"options": {"restart": 2}}}, "less than or equal to 1"),
        (
            "items",
            {"similar_users": {"options": {"neighbours": 9}}},
            "'neighbours' is now named 'neighbors'",
        ),
        ("items", {"als": {"options": {"dimension": 8}}}, "did you mean 'dimensions'"),
        (
            "items",
            {"lightgcn": {"options": {"trainer": {"epoch": 2}}}},
            r"unknown setting 'trainer\.epoch'; did you mean 'epochs'",
        ),
        ("items", {"graphsage": {}}, "'graphsage' does not recommend items"),
        ("people", {"item_knn": {}}, "'item_knn' does not recommend people"),
    ],
)
def test_wrong_settings_of_a_source_are_refused(
    surface: str, sources: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_plugins(config_of(sources, surface))


def test_all_faults_are_named_at_once() -> None:
    sources = {"two_hop": {"options": {"a": 1, "b": 2}}, "popula": {}}
    with pytest.raises(ConfigError) as raised:
        check_plugins(config_of(sources))
    assert len(str(raised.value).splitlines()) == 3


def test_right_settings_are_taken() -> None:
    check_plugins(
        config_of(
            {
                "two_hop": {"options": {"min_common": 2, "score": "jaccard"}},
                "random_walk": {"options": {"restart": 1}},
                "graphsage": {"options": {"curriculum": {"hard_pool": [20, 60]}}},
                "item_knn": {"enabled": False},
            }
        )
    )


def test_every_source_has_valid_default_settings() -> None:
    for name, cls in source_classes().items():
        assert cls.config_class() is not None, name


def test_settings_of_neural_models_need_no_torch() -> None:
    code = (
        "import sys; from nextedge.retrieval.registry import source_classes; source_classes(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
