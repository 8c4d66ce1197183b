"""A release whose embeddings are searched by an index answers as one that compares with all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from shared_builds import quick_builds

from nextedge import Recommender
from nextedge.errors import IndexRecallError
from nextedge.retrieval.model_source import ModelSource


@pytest.fixture(scope="module")
def indexed(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(tenant, tmp_path_factory.mktemp("indexed") / "tenant"))
    with (quick_builds(folder) / "nextedge.toml").open("a") as settings:
        settings.write("[surfaces.items.index]\nkind = 'hnsw'\nexact_search_max_items = 10\n")
    return folder


def test_an_index_finds_what_brute_force_finds(indexed: Path) -> None:
    """Long: a build with another index."""
    recommender = Recommender(indexed)
    release = recommender.build(["items"])
    folder = recommender.releases.get(release).path / "surfaces" / "items" / "index"
    report = json.loads((folder / "index.json").read_text())["als"]
    assert report["kind"] == "hnsw"
    assert report["recall"] >= 0.95
    assert report["queries"] > 100
    brute = Recommender(indexed)
    source = brute.release.surface("items").line.sources["als"]
    assert isinstance(source, ModelSource) and source.index is not None
    source.index = None
    same = total = 0
    for user in range(1, 60):
        name = f"u{user:06d}"
        exact = {r.id for r in brute.recommend(name, "items").recommendations}
        found = {r.id for r in recommender.recommend(name, "items").recommendations}
        same, total = same + len(exact & found), total + len(exact)
    assert same / total > 0.9


def test_an_index_that_finds_too_little_is_not_published(indexed: Path) -> None:
    recommender = Recommender(indexed)
    before = recommender.releases.current_id()
    text = (indexed / "nextedge.toml").read_text()
    (indexed / "nextedge.toml").write_text(
        text.replace("kind = 'hnsw'", "kind = 'ivf_pq'\ntarget_recall = 1.0")
        + "\n[surfaces.items]\ncandidates = 20\n"
    )
    with pytest.raises(IndexRecallError, match="recall@"):
        Recommender(indexed).build(["items"])
    assert recommender.releases.current_id() == before
