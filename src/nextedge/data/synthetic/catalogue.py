"""Items: a catalogue that grows over time, with words of the category of each item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nextedge.data.synthetic.config import START, SyntheticConfig
from nextedge.data.synthetic.draw import Doubles, event_times, normal, pick, uniform, zipf
from nextedge.data.synthetic.people import FACTORS, factor_vectors
from nextedge.data.synthetic.profiles import identifiers, join, words
from nextedge.data.synthetic.words import CATEGORIES, INDUSTRIES, REGIONS, SERIES
from nextedge.data.synthetic.writer import TIMESTAMP, timestamps
from nextedge.types import IndexArray, IntArray

ITEMS_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("category", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("price", pa.float64()),
        ("created_at", TIMESTAMP),
        ("available", pa.bool_()),
        ("regions", pa.list_(pa.string())),
        ("unsafe", pa.bool_()),
    ]
)

_STOCK_SHARE = 0.5
_SOLD_OUT = 0.03
_UNSAFE = 0.01
_EVERYWHERE = 0.8
_CHUNK = 50_000


@dataclass(frozen=True, eq=False)
class Catalogue:
    """M items in the order in which they arrived.

    Attributes:
        created: int64[M], µs UTC, ascending; half of them before the history begins.
        category: int32[M].
        factor: float32[M, FACTORS], latent; the dot product with a taste is the fit.
        appeal: float64[M], popularity weight, log-normal.
    """

    created: IntArray
    category: IndexArray
    factor: npt.NDArray[np.float32]
    appeal: Doubles

    def __len__(self) -> int:
        return len(self.created)


def make_catalogue(config: SyntheticConfig) -> Catalogue:
    """Draw all items. Memory: about 60 bytes each."""
    seed, count = config.seed, config.item_count
    grid = np.array([START - 86_400_000_000 * 365, START, config.end - 1], np.int64)
    mass = np.array([0.0, _STOCK_SHARE, 1.0])
    category = pick(seed, "category", count, zipf(len(CATEGORIES), 0.5, 1.0))
    factor = _category_factors(seed)[category] + 0.7 * factor_vectors(seed, "item", count)
    return Catalogue(
        created=event_times(seed, "items", count, 0, count, grid, mass),
        category=category.astype(np.int32),
        factor=(factor / np.sqrt(FACTORS)).astype(np.float32),
        appeal=np.exp(config.popularity_skew * normal(seed, "appeal", count)),
    )


def _category_factors(seed: int) -> Doubles:
    """float64[categories, FACTORS]: near the industries that buy from the category."""
    of_industry = factor_vectors(seed, "industry", len(INDUSTRIES))
    names = [industry.name for industry in INDUSTRIES]
    out = 0.4 * factor_vectors(seed, "category", len(CATEGORIES))
    for code, category in enumerate(CATEGORIES):
        trades = [names.index(name) for name in category.industries]
        out[code] += of_industry[trades].mean(axis=0)
    return out


def item_ids(count: int) -> pa.Array:
    """string[count]: ``i000001`` and so on, in the order of arrival."""
    return identifiers("i", count)


def item_tables(catalogue: Catalogue, config: SyntheticConfig) -> Iterator[pa.Table]:
    """The items in chunks of rows."""
    ids = item_ids(len(catalogue))
    for first in range(0, len(catalogue), _CHUNK):
        rows = slice(first, min(first + _CHUNK, len(catalogue)))
        yield _table(catalogue, config, rows, ids)


def _table(catalogue: Catalogue, config: SyntheticConfig, rows: slice, ids: pa.Array) -> pa.Table:
    seed, first, count = config.seed, rows.start, rows.stop - rows.start
    category = catalogue.category[rows]
    noun = _word(config, "noun", category, first, [item.nouns for item in CATEGORIES])
    quality = _word(config, "quality", category, first, [item.qualities for item in CATEGORIES])
    use = _word(config, "use", category, first, [item.uses for item in CATEGORIES])
    brand = _word(config, "series", category, first, [SERIES] * len(CATEGORIES))
    name = words([item.name for item in CATEGORIES], category)
    model = pa.array((uniform(seed, "model", count, first) * 90).astype(np.int64) + 10)
    median = np.array([item.price for item in CATEGORIES])[category]
    price = median * np.exp(0.5 * normal(seed, "price", count, first))
    columns = {
        "item_id": ids[first : rows.stop],
        "category": name,
        "title": join(brand, " ", quality, " ", noun, " ", model.cast(pa.string())),
        "description": join(
            "A ", quality, " ", noun, " from ", brand, ", made for ", use, ". ", name, "."
        ),
        "price": np.round(price, 2),
        "created_at": timestamps(catalogue.created[rows]),
        "available": uniform(seed, "available", count, first) >= _SOLD_OUT,
        "regions": _regions(config, first, count),
        "unsafe": uniform(seed, "unsafe", count, first) < _UNSAFE,
    }
    return pa.table(columns, schema=ITEMS_SCHEMA)


def _word(
    config: SyntheticConfig,
    stream: str,
    category: IndexArray,
    first: int,
    choices: list[tuple[str, ...]],
) -> pa.Array:
    """string[rows]: a word of each row's category."""
    sizes = np.array([len(group) for group in choices])
    start = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    share = uniform(config.seed, f"item.{stream}", len(category), first)
    chosen = start[category] + (share * sizes[category]).astype(np.int64)
    return words([word for group in choices for word in group], chosen)


def _regions(config: SyntheticConfig, first: int, count: int) -> pa.Array:
    """The regions of each item: all for most items, else each by an even chance."""
    everywhere = uniform(config.seed, "everywhere", count, first) < _EVERYWHERE
    size = len(REGIONS)
    lot = uniform(config.seed, "regions", count * size, first * size).reshape(count, size)
    # The smallest lot counts too, so that each item has a region.
    sold = everywhere[:, None] | (lot < 0.5) | (lot == lot.min(axis=1, keepdims=True))
    offsets = np.concatenate(([0], np.cumsum(sold.sum(axis=1)))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), words(REGIONS, np.nonzero(sold)[1]))
