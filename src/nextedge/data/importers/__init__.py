"""Public formats into our tables: ``nextedge import FORMAT SOURCE DIR``.

A new format is one function and one line here.
"""

from __future__ import annotations

from nextedge.data.importers.edges import import_edges
from nextedge.data.importers.movielens import import_movielens
from nextedge.data.importers.report import Importer, ImportReport

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        Importer("movielens", "MovieLens 100K, 1M, 10M or latest, unpacked", import_movielens),
        Importer("edges", "a plain edge list (.txt, .csv, .tsv, .gz), or a folder", import_edges),
    )
}

__all__ = ["IMPORTERS", "ImportReport", "Importer", "import_edges", "import_movielens"]
