"""``nextedge events``: their schema, how far their consumers are, and what those gave up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextedge.cli import render
from nextedge.errors import InputError, StorageError, nearest

if TYPE_CHECKING:
    from nextedge.config import Config
    from nextedge.events.logs.log import Log

ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="nextedge.toml, or a folder")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines")]
_DEFAULT = Path("nextedge.toml")
_NOBODY = "nobody has this name"
"""A group that has read nothing: all events of a log wait for it."""

events_app = typer.Typer(
    help="The schema of events, how far their consumers are, and what those gave up.",
    no_args_is_help=True,
)


@events_app.command("status")
def status(config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """Events of each log, and how many wait for which group of consumers."""
    from nextedge.config import load_config

    found = []
    for log, broker_group in _logs(load_config(config)):
        groups = sorted({*log.groups(), *broker_group})
        lags = {group: log.lag(group) for group in groups}
        found.append(
            {
                "log": log.name,
                "events": log.lag(_NOBODY).events,
                "last_position": log.last_position(),
                "dead_letters": len(log.dead_letters()),
                "groups": {
                    g: {"lag": lag.events, "seconds": lag.seconds} for g, lag in lags.items()
                },
            }
        )
        if as_json:
            continue
        last = found[-1]
        render.out.print(
            f"{log.name}: {last['events']:,} events, the last at {last['last_position'] or 'none'}; "
            f"{last['dead_letters']:,} dead letters"
        )
        rows = [(g, f"{lag.events:,}", f"{lag.seconds:,.1f}") for g, lag in lags.items()]
        if rows:
            render.table("Groups", ("group", "events waiting", "oldest (seconds)"), rows)
    if as_json:
        render.print_json(found)


@events_app.command("dead-letters")
def dead_letters(config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """Events that a group of consumers gave up, oldest first, and why."""
    from nextedge.config import load_config

    found = [
        {
            "log": log.name,
            "group": letter.group,
            "position": letter.position,
            "micros": letter.micros,
            "reason": letter.reason,
            "body": letter.body.decode(errors="replace"),
        }
        for log, _ in _logs(load_config(config))
        for letter in log.dead_letters()
    ]
    if as_json:
        render.print_json(found)
        return
    render.out.print(f"{len(found):,} dead letters")
    for each in found:
        text = "{log}, group {group}, position {position}: {reason}".format(**each)
        for line in (text, f"  {json.dumps(each['body'])}"):  # a body may hold anything
            render.out.print(line, markup=False, soft_wrap=True)


@events_app.command("schema")
def print_schema() -> None:
    """The JSON schema of an event, every type with its fields."""
    from nextedge.events.schemas import json_schema

    render.print_json(json_schema())


@events_app.command("drop-group")
def drop_group(
    group: Annotated[str, typer.Argument(help="as 'nextedge events status' names it")],
    config: ConfigFile = _DEFAULT,
) -> None:
    """Let no event wait for a group of consumers that nobody reads for any more."""
    from nextedge.config import load_config
    from nextedge.events.logs.log import open_live_log

    with closing(open_live_log(load_config(config))) as log:
        names = log.groups()
        if group not in names:
            raise InputError(f"no group {group!r}; {nearest(group, names)}")
        log.drop(group)
    render.out.print(f"nothing waits for {group!r} any more", markup=False)


def _logs(config: Config) -> Iterator[tuple[Log, tuple[str, ...]]]:
    """The live log and the broker, if there is one, with our group at the broker."""
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
            render.err.print(f"broker: {error}", markup=False)
            return
        yield broker, (group_at_broker(config),)
