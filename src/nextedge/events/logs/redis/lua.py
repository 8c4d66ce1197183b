"""The Lua scripts of the Redis log, from the files ``*.lua`` beside this module.

Redis runs a script as one step: no other client comes between, and all of its writes happen or none.
The first line of a file says what the script returns; ``common.lua`` precedes every script.
"""

from __future__ import annotations

from importlib.resources import files


def _load(name: str) -> str:
    folder = files(__package__)
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("common", name))


APPEND = _load("append")
COMMIT = _load("commit")
COPY = _load("copy")
DROP = _load("drop")
EVICT = _load("evict")
FIND = _load("find")
GROUPS = _load("groups")
LAG = _load("lag")
LAGGARDS = _load("laggards")
REJECT = _load("reject")
RELEASE = _load("release")
RENEW = _load("renew")
REWIND = _load("rewind")
STATE = _load("state")
SWAP = _load("swap")
TAKE = _load("take")
