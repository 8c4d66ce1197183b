"""Two encoders of texts as vectors of unit length, whose dot product is their similarity.

Hashed TF-IDF needs no model. A sentence-transformers model in a local folder compares meaning
across words and languages; a cache stores each vector under the hash of its text, so that a build
encodes only new texts.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nextedge.engines.base import RunBlocks
from nextedge.engines.blocks import run_here
from nextedge.errors import ConfigError, MissingDependencyError
from nextedge.graph.propagate import SparseRows
from nextedge.types import FloatArray

BUCKETS = 1 << 18
_KEY = np.dtype("S32")
_BLOCK = 4096
_PICKLED = ("*.bin", "*.pkl", "*.pt", "*.pth")

TextProgress = Callable[[int, int], None]
"""Told (texts encoded, texts in all)."""


def quiet(*_: int) -> None:
    """Progress that nobody reads."""


class TextEncoder(ABC):
    """Makes a row of unit length from each text; the row of an empty text has no entry."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of the encoder: equal versions give equal rows for equal texts."""

    def prepare(  # noqa: B027 - only slow encoders override it
        self, texts: Sequence[str], run: RunBlocks, progress: TextProgress = quiet
    ) -> None:
        """Do the slow work for texts ahead of ``encode``, in blocks; by default there is none."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> SparseRows:
        """One row a text, columns ascending."""


class HashedText(TextEncoder):
    """Hashed TF-IDF of words and word pairs.

    Salton, Buckley 1988 weighting as in scikit-learn: (1 + ln tf) · (1 + ln((1+n)/(1+df))).

    >>> rows = HashedText().encode(["red shoe", "red shoe", ""])
    >>> float(round(rows.values[:3] @ rows.values[3:6], 3)), int(rows.indptr[-1])
    (1.0, 6)
    """

    version = "hashed-1"

    def encode(self, texts: Sequence[str]) -> SparseRows:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        if not texts:
            none = np.zeros(0, np.int32), np.zeros(0, np.float32)
            return SparseRows(np.zeros(1, np.int64), *none, BUCKETS)
        vectorizer = HashingVectorizer(
            n_features=BUCKETS, alternate_sign=False, norm=None, ngram_range=(1, 2)
        )
        counts = vectorizer.transform(texts)
        weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts).tocsr()
        weighted.sort_indices()  # rows of an encoder have ascending columns
        return SparseRows(
            weighted.indptr.astype(np.int64),
            weighted.indices.astype(np.int32),
            weighted.data.astype(np.float32),
            BUCKETS,
        )


class SentenceText(TextEncoder):
    """A sentence-transformers model of a local folder, weights in safetensors.

    Args:
        folder: as ``SentenceTransformer.save`` writes it.
        cache: folder of the cached vectors.

    Raises:
        ConfigError: the folder is not one of a model, or holds pickled weights.
        MissingDependencyError: sentence-transformers is not installed.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        if not (folder / "modules.json").exists():
            raise ConfigError(
                f"features.text_model: {folder} is not the folder of a sentence-transformers model "
                "(no modules.json); save one there with SentenceTransformer(…).save(folder)"
            )
        pickled = sorted(file.name for kind in _PICKLED for file in folder.rglob(kind))
        if pickled:
            raise ConfigError(
                f"features.text_model: {folder} holds {pickled[0]}, which may run code when read; "
                "save the model with safe_serialization=True and delete that file"
            )
        self.folder = folder
        digest = hashlib.sha256()
        for file in sorted(f for f in folder.rglob("*") if f.is_file()):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        self._version = f"sentence-{digest.hexdigest()[:20]}"
        self.cache = cache / self._version  # a changed model must not read the old one's vectors

    @property
    def version(self) -> str:
        return self._version

    def prepare(self, texts: Sequence[str], run: RunBlocks, progress: TextProgress = quiet) -> None:
        """Encode the texts that the cache lacks; each finished block enters the cache."""
        new = {_key(text): text for text in texts if text.strip()}
        for key in self._cached()[0].tolist():
            new.pop(key, None)
        # Equal texts give equal blocks, whose hash names their file.
        keys = sorted(new)
        blocks = (keys[start : start + _BLOCK] for start in range(0, len(keys), _BLOCK))
        tables = (pa.table({"key": part, "text": [new[key] for key in part]}) for part in blocks)
        done = 0
        for encoded in run(EncodeTexts(self.folder, self.cache), tables):
            done += len(encoded)
            progress(done, len(keys))

    def encode(self, texts: Sequence[str]) -> SparseRows:
        self.prepare(texts, run_here)
        keys = np.array([_key(text) for text in texts], _KEY)
        full = np.array([bool(text.strip()) for text in texts], bool)
        known, vectors = self._cached()
        width = vectors.shape[1] if len(vectors) else 1
        indptr = np.concatenate(([0], np.cumsum(full, dtype=np.int64))) * width
        if not full.any():
            return SparseRows(indptr, np.zeros(0, np.int32), np.zeros(0, np.float32), width)
        order = np.argsort(known, kind="stable")
        row = order[np.searchsorted(known, keys[full], sorter=order)]
        columns = np.tile(np.arange(width, dtype=np.int32), int(full.sum()))
        return SparseRows(indptr, columns, vectors[row].ravel(), width)

    def _cached(self) -> tuple[np.ndarray, FloatArray]:
        keys, vectors = [np.zeros(0, _KEY)], []
        for file in sorted(self.cache.glob("*.npz")):
            with np.load(file, allow_pickle=False) as part:
                keys.append(part["keys"])
                vectors.append(part["vectors"])
        none = np.zeros((0, 0), np.float32)
        return np.concatenate(keys), np.concatenate(vectors) if vectors else none


@dataclass(frozen=True)
class EncodeTexts:
    """The block function: takes texts and their keys, writes their vectors to a file of ``cache``.

    Attributes:
        folder: of the model.
    """

    folder: Path
    cache: Path

    def __call__(self, block: pa.Table) -> pa.Table:
        vectors = _sentence_model(self.folder).encode(
            block["text"].to_pylist(),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        keys = np.array(block["key"].to_pylist(), _KEY)
        self._save(keys, np.asarray(vectors, np.float32))
        return block.select(["key"])

    def _save(self, keys: np.ndarray, vectors: FloatArray) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:20]
        partial = self.cache / f".{name}.{os.getpid()}"
        try:
            with partial.open("wb") as stream:
                np.savez(stream, allow_pickle=False, keys=keys, vectors=vectors)
            # A build that is killed leaves no half file in the cache.
            os.replace(partial, self.cache / f"{name}.npz")
        finally:
            partial.unlink(missing_ok=True)


@lru_cache(maxsize=1)  # a process encodes many blocks with one model
def _sentence_model(folder: Path) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependencyError(
            "sentence-transformers", "text", "features.text_model"
        ) from None
    return SentenceTransformer(str(folder), local_files_only=True)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest().encode()


def text_encoder(model: Path | None, cache: Path) -> TextEncoder:
    """The encoder of the settings: hashed words, or the model of a local folder."""
    return HashedText() if model is None else SentenceText(model, cache)
