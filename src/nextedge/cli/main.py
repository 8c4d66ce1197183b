"""The ``nextedge`` command: its groups of commands, and the exit codes of their errors."""

from __future__ import annotations

import sys

import typer

from nextedge.cli import (
    build,
    contacts,
    demo,
    evaluate,
    events,
    forget,
    import_tables,
    keys,
    plan,
    publish,
    recommend,
    record,
    releases,
    render,
    serve,
)
from nextedge.errors import NextEdgeError

app = typer.Typer(
    help="NextEdge recommends the next edge in a graph: people to people, and people to items.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    # Help by rich takes three times the CPU time, and cuts off long option names at 80 columns.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo.demo,
    build.init,
    build.check,
    build.build,
    recommend.recommend,
    evaluate.evaluate,
    serve.serve,
    serve.serve_shard,
    publish.publish,
    record.record,
    record.replay,
    contacts.contacts,
    forget.forget,
    plan.plan,
):
    app.command()(command)
app.command("import")(import_tables.import_tables)
app.add_typer(releases.app, name="releases")
app.add_typer(events.app, name="events")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line; print a known error in one line, and exit with its code."""
    try:
        app(standalone_mode=True)
    except NextEdgeError as error:
        render.warn(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        render.warn("stopped; run the same command again to resume")
        sys.exit(1)
