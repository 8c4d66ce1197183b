"""A commented ``nextedge.toml`` to start from."""

from __future__ import annotations

import os
from pathlib import Path

from nextedge.config import FILE_NAME, find_table_file
from nextedge.errors import InputError
from nextedge.schema import TABLES

_HEAD = """\
# Settings of one tenant. Every value has a default; delete what you do not change.
tenant = "{tenant}"
state = "./state"                     # releases, event log, caches; or s3://bucket/prefix, gs://, az://

[data]                                # paths relative to this file, globs, or database URLs
{tables}
# directed = false                    # true: a connection from a to b says nothing of b to a
# dangling = "drop"                   # "keep": rows may name users or items without a row

# [data.columns.connections]          # only where your names differ: ours = "yours"
# src = "from_user"
# dst = "to_user"

# [features.users]                    # inferred from the columns' types when left out
# categorical = ["company", "school", "city"]
# text = ["bio"]

# [onboarding]                        # contacts of new users
# identifier_columns = ["email"]      # of users: hashed as they are read, kept nowhere in clear

# [split]                             # how history is cut for training and evaluation
# method = "auto"                     # time, last, random

# [build]                             # what a build may take; docs/memory.md
# memory_gib = 18                     # default: three quarters of the machine's

# [training]                          # networks, by several processes; docs/training.md
# processes = 2                       # on this machine; launcher = "spark" for executors

# [serving]                           # nextedge serve; docs/serving.md
# store = "redis://host:6379"         # processes share ranked lists and published candidates
# candidates_features = true          # nextedge publish keeps features too: requests only rank
# shards = ["one:8100", "two:8100"]   # nextedge serve-shard 0/2 and 1/2 search the indexes
# deadline_ms = 200                   # what would not be done by then is left out, and said so
# requests_per_second = 500           # of this tenant; 429 beyond
"""
_SURFACE = """
[surfaces.{name}]
k = 20                                # results when a request does not say
candidates = 1500                     # kept after merging the sources
[surfaces.{name}.policy]
# max_per = {{ {column} = 5 }}            # at most so many results that share a value
# diversity = 0.3                     # 0 to 1: difference from what is above beside the score
# exploration = {{ slots = 2 }}         # last places for new candidates, with their chance logged
# recently_shown_days = 7             # leave out what was shown lately
# [surfaces.{name}.ranker]
# action_weights = {{ purchase = 5, dismiss = 3 }}   # what an action counts; 1 where not named
# [surfaces.{name}.sources.two_tower]  # a model that is off by default; also lightgcn, bpr
# enabled = true                      # or false, for any source
# options = {{ dimensions = 64 }}       # settings of the model
# [surfaces.{name}.index]             # nearest-neighbour search among many candidates
# target_recall = 0.95                # less, and nothing is published
# memory_mb = 4096
# shards = "auto"                     # for processes of nextedge serve-shard; docs/sharding.md
"""


def write_template(directory: Path) -> Path:
    """Write ``nextedge.toml`` into a folder, naming the table files that are there.

    Raises:
        InputError: the folder has one already.
    """
    path = directory / FILE_NAME
    if path.exists():
        raise InputError(f"{path} exists already; edit it, or remove it first")
    directory.mkdir(parents=True, exist_ok=True)
    found = {name: find_table_file(directory, name) for name in TABLES}
    lines = [
        f'{name} = "{file}"' if file else f'# {name} = "{name}.parquet"'
        for name, file in found.items()
    ]
    text = _HEAD.format(tenant=directory.resolve().name or "default", tables="\n".join(lines))
    people, items = found["connections"], found["interactions"]
    if people or not items:
        text += _SURFACE.format(name="people", column="company")
    if items or not people:
        text += _SURFACE.format(name="items", column="category")
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path
