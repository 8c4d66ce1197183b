"""Both text encoders: likeness, empty texts, the cache, and models that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.engines.blocks import run_here
from nextedge.errors import ConfigError
from nextedge.graph import text_encoder as text
from nextedge.graph.propagate import SparseRows
from nextedge.graph.text_encoder import HashedText, SentenceText, TextEncoder

WORDS = ["graph", "network", "cooking", "baking", "データ", "🙂"]
TEXTS = ["graph network", "network graph", "cooking baking", "", "graph network"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one vector a word: words of one trade lie near each other."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate([*WORDS, "?"])}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.random.default_rng(0).normal(size=(len(WORDS) + 1, 8)).astype(np.float32) * 0.1
    vectors[:2, 0] += 1.0
    vectors[2:4, 1] += 1.0
    folder = tmp_path_factory.mktemp("model") / "words"
    static = StaticEmbedding(tokenizer, embedding_weights=vectors)
    SentenceTransformer(modules=[static], device="cpu").save(str(folder))
    return folder


def dense(rows: SparseRows) -> np.ndarray:
    found = np.zeros((len(rows.indptr) - 1, rows.columns), np.float32)
    row = np.repeat(np.arange(len(found)), np.diff(rows.indptr))
    found[row, rows.indices] = rows.values
    return found


def check(encoder: TextEncoder) -> None:
    """What both promise."""
    found = encoder.encode(TEXTS)
    vectors = dense(found)
    length = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(length, [1, 1, 1, 0, 1], atol=1e-5)
    like = vectors @ vectors.T
    assert like[0, 4] == pytest.approx(1.0, abs=1e-5)
    assert like[0, 1] > like[0, 2] + 0.3
    assert np.isfinite(dense(encoder.encode(["データ 🙂"]))).all()
    assert len(encoder.encode([]).indptr) == 1
    assert encoder.encode(["", " "]).indptr[-1] == 0


def test_hashed_text() -> None:
    check(HashedText())


def test_sentence_text(model: Path, tmp_path: Path) -> None:
    check(SentenceText(model, tmp_path))


def test_a_text_is_encoded_once(model: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = SentenceText(model, tmp_path)
    first.prepare(TEXTS, run_here, lambda *done: told.append(done))
    assert told == [(3, 3)]  # three different texts
    again = SentenceText(model, tmp_path)
    np.testing.assert_array_equal(first.encode(TEXTS).values, again.encode(TEXTS).values)
    mixed = ["graph", *TEXTS]
    again.prepare(mixed, run_here, lambda *done: told.append(done))
    assert told == [(3, 3), (1, 1)]
    np.testing.assert_array_equal(again.encode(mixed).values[8:], first.encode(TEXTS).values)


def test_what_was_encoded_before_an_interruption_is_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_BLOCK", 2)

    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SentenceText(model, tmp_path).prepare(WORDS, run_here, stop)
    told: list[tuple[int, int]] = []
    SentenceText(model, tmp_path).prepare(WORDS, run_here, lambda *done: told.append(done))
    assert told == [(2, 4), (4, 4)]  # of six words two were done


def test_a_folder_that_is_no_model_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"modules\.json"):
        SentenceText(tmp_path, tmp_path)


def test_pickled_weights_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin"):
        SentenceText(tmp_path, tmp_path)


def test_a_build_reads_titles_by_the_model(model: Path, tmp_path: Path) -> None:
    titles = ["graph network", "network", "cooking", "baking cooking"]
    (tmp_path / "items.csv").write_text(
        "item_id,title\n" + "".join(f"{i},{titles[i % 4]} {i}\n" for i in range(40))
    )
    random = np.random.default_rng(0)
    rows = [f"{u},{i}" for u in range(60) for i in random.choice(40, 6, replace=False)]
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n" + "\n".join(rows) + "\n")
    (tmp_path / "nextedge.toml").write_text(
        f'[features]\ntext_model = "{model}"\nitems = {{ text = ["title"] }}\n'
        '[data]\nitems = "items.csv"\ninteractions = "interactions.csv"\n'
    )
    recommender = Recommender(tmp_path)
    recommender.build(["items"])
    assert list((tmp_path / "state" / "text").rglob("*.npz"))
    encoded = recommender.release.entities.item_attributes.columns["title"].rows
    assert encoded.columns == 8
