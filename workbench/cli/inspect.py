"""`workbench inspect`: what a device, the processor or an interrupt controller was doing."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from workbench.cli import engine, text, travel
from workbench.errors import EXIT_OK, UsageError

EXAMPLES = """\
examples:
  workbench inspect boot.wbt                         # what there is to look at
  workbench inspect boot.wbt ide0 --at 1.2G
  workbench inspect boot.wbt virtio0 --at access:51234 --rows 300
  workbench inspect boot.wbt irq --at end --since 99%    # what has changed is marked
  workbench inspect boot.wbt e1000-0 --at end --json | jq '.tables[].title'

A position is an instruction count (1234567, 1.2G), 50%, start, end, access:N, request:ide0/17 or
bookmark:NAME.
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "inspect", help="look into a device at a moment of the run", description=__doc__,
        epilog=EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("trace", metavar="TRACE", help="a trace (.wbt)")
    add("name", metavar="NAME", nargs="?",
        help="device, or pci, irq, timers, cpu, tlb, requests; without it: the list")  # fmt: skip
    add("--at", metavar="POSITION", default="end", help="the moment (default: end)")
    add("--since", metavar="POSITION", help="mark what has changed since this earlier moment")
    add("--rows", metavar="N", type=int, default=64, help="rows of a table (default: 64)")
    add("--json", action="store_true", help="one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Go there and look."""
    from workbench import inspect
    from workbench.cli.text import complain
    from workbench.trace import position
    from workbench.trace.bookmarks import Bookmarks
    from workbench.trace.reader import open_trace
    from workbench.trace.timeline import Timeline

    if not 1 <= args.rows <= 1 << 20:
        raise UsageError(f"expected 1 to 1048576 rows, not {args.rows}")
    with open_trace(args.trace) as trace:
        bookmarks = Bookmarks(args.trace).places
        at = position.parse(args.at, trace, bookmarks)
        since = None if args.since is None else position.parse(args.since, trace, bookmarks)
        engine.prepare()
        timeline = Timeline(trace)
        machine = timeline.machine
        if args.name is None:
            return _list([*inspect.names(machine), inspect.REQUESTS], args.json)
        name = args.name
        if name != inspect.REQUESTS:
            name = inspect.resolve(machine, name)
        before = None
        if since is not None:
            travel.seek(timeline, since)
            before = inspect.capture(machine, name, args.rows, trace)
        travel.seek(timeline, at)
        if timeline.kept.problem:
            complain(timeline.kept.problem)
        page = inspect.capture(machine, name, args.rows, trace)
        clock = machine.clock
        if args.json:
            where = {"icount": clock.icount, "time_ps": clock.now_ps}
            text.print_json({**where, **page.to_json()})
        elif text.plain(sys.stdout):
            sys.stdout.write(f"instruction {clock.icount:,}\n{inspect.plain(page, before)}")
        else:
            console = text.rich_console(sys.stdout)
            console.print(f"instruction {clock.icount:,}")
            console.print(inspect.render(page, before))
    return EXIT_OK


def _list(names: list[str], as_json: bool) -> int:
    if as_json:
        json.dump(names, sys.stdout)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("".join(f"{text.safe(name)}\n" for name in names))
    return EXIT_OK
