"""``nextedge events``: the schema of events, lag of their consumers, and dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextedge.cli import render
from nextedge.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile, open_config
from nextedge.errors import InputError, StorageError, nearest

if TYPE_CHECKING:
    from nextedge.config import Config
    from nextedge.events.logs.log import Log

_NO_GROUP = "nobody has this name"
"""Name of a group that has read nothing, so that its lag is the number of all events."""

app = typer.Typer(
    help="Inspect the event log: schema, lag of consumers, dead letters.", no_args_is_help=True
)


@app.command()
def status(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Print the events of each log, and the lag of each group."""
    logs = [_status_of(log, group) for log, group in _logs(open_config(config))]
    if as_json:
        render.print_json(logs)
        return
    for log in logs:
        render.say(
            f"{log['log']}: {log['events']:,} events, the last at {log['last_position'] or 'none'}; "
            f"{log['dead_letters']:,} dead letters"
        )
        rows = [
            (name, f"{group['lag']:,}", f"{group['seconds']:,.1f}")
            for name, group in log["groups"].items()
        ]
        if rows:
            render.table("Groups", ("group", "events waiting", "oldest (seconds)"), rows)


def _status_of(log: Log, broker_group: tuple[str, ...]) -> dict[str, Any]:
    """The numbers of one log as JSON values."""
    lags = {group: log.lag(group) for group in sorted({*log.groups(), *broker_group})}
    return {
        "log": log.name,
        "events": log.lag(_NO_GROUP).events,
        "last_position": log.last_position(),
        "dead_letters": len(log.dead_letters()),
        "groups": {
            group: {"lag": lag.events, "seconds": lag.seconds} for group, lag in lags.items()
        },
    }


@app.command("dead-letters")
def dead_letters(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the events that a group of consumers gave up, and why."""
    letters = [
        {
            "log": log.name,
            "group": letter.group,
            "position": letter.position,
            "micros": letter.micros,
            "reason": letter.reason,
            "body": letter.body.decode(errors="replace"),
        }
        for log, _ in _logs(open_config(config))
        for letter in log.dead_letters()
    ]
    if as_json:
        render.print_json(letters)
        return
    render.say(f"{len(letters):,} dead letters")
    for letter in letters:
        render.say("{log}, group {group}, position {position}: {reason}".format(**letter))
        render.say(f"  {json.dumps(letter['body'])}")  # quoted, as a body may hold any byte


@app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of an event: each type with its fields."""
    from nextedge.events.schemas import json_schema

    render.print_json(json_schema())


@app.command("drop-group")
def drop_group(
    group: Annotated[str, typer.Argument(help="name, as 'nextedge events status' prints it")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Delete a group of consumers that is no longer read."""
    from nextedge.events.logs.log import open_live_log

    with closing(open_live_log(open_config(config))) as log:
        names = log.groups()
        if group not in names:
            raise InputError(f"no group {group!r}; {nearest(group, names)}")
        log.drop(group)
    render.say(f"deleted group {group!r}; no event waits for it any more")


def _logs(config: Config) -> Iterator[tuple[Log, tuple[str, ...]]]:
    """The live log, then the broker if there is one, with our group at the broker."""
    from nextedge.events.logs.log import open_live_log, open_log
    from nextedge.events.logs.relay import group_at_broker

    with closing(open_live_log(config)) as live:
        yield live, ()
    if config.events.broker is None:
        return
    with closing(open_log(config.events.broker, config)) as broker:
        try:
            broker.last_position()
        except StorageError as error:
            # The live log has its numbers even while the broker is down.
            render.warn(f"broker: {error}")
            return
        yield broker, (group_at_broker(config),)
