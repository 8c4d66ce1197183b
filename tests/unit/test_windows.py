"""The output of the windows step, and the files that a block function keeps open."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nextedge.build.time_split.split import TimeSplit, Window
from nextedge.engines.blocks import OpenedFiles


def test_a_split_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    graph = np.array([True, False, True])
    windows = [
        Window("label_0", 3, graph, ~graph),
        Window("label_1", 4, graph, graph),
        Window("evaluation", None, ~graph, graph),
    ]
    TimeSplit("random", "by seed", windows).save(tmp_path)
    split = TimeSplit.load(tmp_path)
    assert (split.method, split.reason) == ("random", "by seed")
    for loaded, window in zip(split.windows, windows, strict=True):
        assert (loaded.name, loaded.as_of) == (window.name, window.as_of)
        np.testing.assert_array_equal(loaded.graph, window.graph)
        np.testing.assert_array_equal(loaded.labels, window.labels)
    # Windows that share a graph are told by identity: their pipeline is made once.
    assert split.windows[0].graph is split.windows[1].graph
    assert not split.common().graph.any()


def test_the_least_recently_used_files_are_closed_first() -> None:
    files: OpenedFiles[str, str] = OpenedFiles(2)
    opened: list[str] = []

    def get(key: str) -> str:
        return files.get(key, lambda: opened.append(key) or key)

    assert [get(key) for key in ("a", "b", "a", "c", "a", "b")] == ["a", "b", "a", "c", "a", "b"]
    assert opened == ["a", "b", "c", "b"]
    files.clear()
    get("a")
    assert opened[-1] == "a"
