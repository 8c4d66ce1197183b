"""What the real-time features are worth, on label windows cut from the train part of real data.

    python bench/events/features.py SET … [--data DIR]

For every set with times: trees are fitted on the windows before each later one, with
all real-time ones, with none and with one of them, and NDCG@20 on that later window is compared, the
mean of three fits. No test part is looked at. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "ranking"))
sys.path.append(str(Path(__file__).parents[1] / "quality"))
from quality import ABLATION_TREES, DATA, _some
from run import SETS

from nextedge.build.cache.fingerprint import fingerprint
from nextedge.build.embed import EmbedStep
from nextedge.build.entities import EntitiesStep
from nextedge.build.rank import RankStep
from nextedge.build.snapshot import SnapshotStep
from nextedge.build.step import StepRunner
from nextedge.build.tables import TablesStep
from nextedge.build.windows import WindowsStep
from nextedge.config import RankerConfig, load_config
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.learners import Task, learners
from nextedge.models.rankers.ndcg import ndcg_of_rows
from nextedge.progress import quiet

SEEDS = 3
PAIRED = {"candidate_popularity_day", "query_quiet_hours"}


def measure(name: str, data: Path) -> dict[str, object]:
    """NDCG@20 on later windows without real-time features, and its ratios with some."""
    surface, split = SETS[name]
    tables, _ = split(data / name)
    folder = Path(tempfile.mkdtemp(prefix="nextedge-events-"))
    try:
        for table, frame in tables.items():
            frame.write_parquet(folder / f"{table}.parquet")
        config = load_config(folder)
        with LocalEngine(temp_directory=folder / "spill") as engine:
            shop = StepRunner(folder / "work", quiet)
            done = {"tables": shop.complete(TablesStep(config, engine, fingerprint(config)), {})}
            done["entities"] = shop.complete(EntitiesStep(config, engine), done)
            own = {"entities": done["entities"]}
            done["snapshot"] = shop.complete(SnapshotStep(engine), own)
            own |= {"snapshot": done["snapshot"]}
            done["windows"] = shop.complete(WindowsStep(config, engine, surface), own)
            own |= {"windows": done["windows"]}
            done["embed"] = shop.complete(EmbedStep(config, engine, surface), own)
            inputs = {step: path for step, (_, path) in done.items()}
            learned = RankStep(config, engine, surface).training_set(
                inputs, folder / "windows", quiet
            )
        parts = [part for part in learned.rows if (part.label > 0).any()]
        names = learned.pipelines.features.names
        live = list(learned.pipelines.features.live)
        dropped = {"none": live, "all": []}
        dropped |= {f"only {each}": [other for other in live if other != each] for each in live}
        if set(live) >= PAIRED:
            dropped["only " + " and ".join(sorted(PAIRED))] = [f for f in live if f not in PAIRED]
        ndcg = {
            what: [
                _quality(_some(LabelledRows.joined(parts[:place])), parts[place], names, without)
                for place in range(1, len(parts))
            ]
            for what, without in dropped.items()
        }
        whole = np.array(ndcg["none"])
        return {
            "set": name,
            "surface": surface,
            "ndcg@20 by window": whole.round(4).tolist(),
            "ratio to none": {
                what: round(float(np.exp(np.mean(np.log(np.array(values) / whole)))), 4)
                for what, values in ndcg.items()
            },
        }
    finally:
        shutil.rmtree(folder)


def _quality(
    training: LabelledRows, later: LabelledRows, names: list[str], without: list[str]
) -> float:
    """Mean NDCG@20 of fits that differ in their seed."""
    kept = [place for place, name in enumerate(names) if name not in without]
    own = [names[place] for place in kept]
    rows = LabelledRows(training.matrix[:, kept], training.label, training.group, training.weight)
    found = []
    for seed in range(SEEDS):
        ranker = learners()["lightgbm"].whole(
            Task(own, RankerConfig(seed=seed)), rows, ABLATION_TREES
        )
        score = ranker.raw(later.matrix[:, kept])
        found.append(ndcg_of_rows(score, later.label, later.group, weight=later.weight))
    return float(np.mean(found))


def main() -> None:
    """Measure the named sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", choices=list(SETS))
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    for name in given.sets:
        print(json.dumps(measure(name, given.data), indent=1), flush=True)


if __name__ == "__main__":
    main()
