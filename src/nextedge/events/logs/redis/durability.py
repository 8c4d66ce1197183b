"""Wait until Redis has stored events on disk, and until erased events have left its files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nextedge.errors import StorageError, StoreError
from nextedge.stores.redis_client import RedisClient

_WAITS_FOR_DISK = (7, 2)  # the first version with WAITAOF
_DISK_SECONDS = 4.0  # of WAITAOF; less than the client's timeout, so that Redis answers first
_FILES_SECONDS = 600.0  # limit for Redis to rewrite its files
_LOOK_SECONDS = 0.05
_log = logging.getLogger("nextedge.events")


class Durability:
    """Runs scripts and returns once their writes are on disk.

    If the server cannot promise that, one warning names the settings that can.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._server: tuple[str, bool] | None = None
        self._warned = False

    def run(self, script: str, keys: Sequence[str], rows: Sequence[Any]) -> Any:
        """Run a script whose answer begins with the log's state.

        Raises:
            StorageError: Redis is not reached, refuses, or has not written in time.
        """
        run_id, waits = self._server or self._look()
        run = _run_and_wait if waits else _run
        answer = self._client.call(partial(run, script=script, keys=keys, rows=rows))
        # a restarted server may have other settings; appending again is safe, as ids count once
        restarted = answer[0][0].decode() != run_id
        if restarted and self._look()[1] and not waits:
            return self.run(script, keys, rows)
        return answer

    def _look(self) -> tuple[str, bool]:
        """Run id of the server, and whether scripts wait for its disk."""
        info = self._client.call(lambda redis: redis.info())
        version = tuple(int(part) for part in info["redis_version"].split(".")[:2])
        writes = bool(info["aof_enabled"])
        waits = writes and version >= _WAITS_FOR_DISK
        if not waits and not (writes and self._always()) and not self._warned:
            self._warned = True
            _log.warning(
                "events.log: %s acknowledges before it has written: events of its last second, or "
                "since it last wrote, may be lost with it; set appendonly yes and appendfsync "
                "always in redis.conf%s",
                self._client.public_url,
                "" if version >= _WAITS_FOR_DISK else ", or appendonly yes from Redis 7.2 on",
            )
        self._server = info["run_id"], waits
        return self._server

    def _always(self) -> bool:
        try:
            setting = self._client.call(lambda redis: redis.config_get("appendfsync"))
        except StoreError:  # many hosted servers forbid CONFIG GET
            return False
        return _text(setting.get("appendfsync", setting.get(b"appendfsync"))) == "always"

    def rewrite_files(self) -> None:
        """Make Redis write its files again, without deleted entries.

        Raises:
            StorageError: Redis refuses or takes too long; the call can be repeated.
        """
        if self._files()["aof_enabled"]:
            self._write(lambda redis: redis.bgrewriteaof(), "aof_last_bgrewrite_status")
        if self._saves():
            self._write(lambda redis: redis.bgsave(), "rdb_last_bgsave_status")

    def _saves(self) -> bool:
        try:
            setting = self._client.call(lambda redis: redis.config_get("save"))
        except StoreError:
            return False
        return bool(_text(setting.get("save", setting.get(b"save"))))

    def _files(self) -> dict[str, Any]:
        info: dict[str, Any] = self._client.call(lambda redis: redis.info("persistence"))
        return info

    def _write(self, begin: Callable[[Any], Any], status: str) -> None:
        self._wait()  # a rewrite that is under way may have begun before the deletion
        self._client.call(begin)
        self._wait()
        if _text(self._files().get(status)) != "ok":
            raise StorageError(
                f"{self._client.public_url}: files not written ({status}): run it again"
            )

    def _wait(self) -> None:
        until = time.monotonic() + _FILES_SECONDS
        while any(
            self._files().get(name)
            for name in (
                "aof_rewrite_in_progress",
                "aof_rewrite_scheduled",
                "rdb_bgsave_in_progress",
            )
        ):
            if time.monotonic() > until:
                raise StorageError(
                    f"{self._client.public_url}: erased from memory, but its files are still being "
                    "written anew: run it again later"
                )
            time.sleep(_LOOK_SECONDS)


def _run(redis: Any, script: str, keys: Sequence[str], rows: Sequence[Any]) -> Any:
    return redis.register_script(script)(keys, rows)


def _run_and_wait(redis: Any, script: str, keys: Sequence[str], rows: Sequence[Any]) -> Any:
    from redis.exceptions import NoScriptError

    digest = redis.register_script(script).sha
    while True:
        # one connection, because WAITAOF waits for the writes of its own connection alone
        with redis.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("EVALSHA", digest, len(keys), *keys, *rows)
            pipeline.execute_command("WAITAOF", 1, 0, int(_DISK_SECONDS * 1000))
            answer, written = pipeline.execute(raise_on_error=False)
        if isinstance(answer, NoScriptError):
            redis.script_load(script)
            continue
        for result in (answer, written):
            if isinstance(result, Exception):
                raise result
        if written[0] < 1:
            raise TimeoutError(f"its disk has not written within {_DISK_SECONDS:g} s")
        return answer


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
