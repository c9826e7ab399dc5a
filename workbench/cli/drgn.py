"""`workbench drgn`: the guest's kernel as a drgn program, at a moment of the run."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

from workbench.cli import engine, travel
from workbench.errors import EXIT_OK, InputFileError

EXAMPLES = """\
examples:
  workbench drgn boot.wbt --at 1.2G                  # an interactive session: prog is the guest
  workbench drgn boot.wbt --at end -c 'print(prog.symbol("jiffies"))'
  workbench drgn boot.wbt --at access:51234 script.py

Types need the kernel's debug information (Debian: linux-image-...-dbg); memory and symbols do not.
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "drgn", help="look at the guest's kernel with drgn", description=__doc__, epilog=EXAMPLES
    )
    add = parser.add_argument
    add("trace", metavar="TRACE", help="a trace (.wbt)")
    add("script", metavar="SCRIPT", nargs="?", help="a Python file to run instead of a session")
    add("--at", metavar="POSITION", default="end", help="the moment (default: end)")
    add("-c", dest="code", metavar="CODE", help="a line of Python to run instead of a session")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Go there and hand over to drgn."""
    from workbench.cli.text import complain
    from workbench.gdbstub.drgn_program import program
    from workbench.trace import position
    from workbench.trace.bookmarks import Bookmarks
    from workbench.trace.reader import open_trace
    from workbench.trace.timeline import Timeline

    if args.script is not None and not Path(args.script).is_file():
        raise InputFileError(f"{args.script}: there is no such file")
    with open_trace(args.trace) as trace:
        at = position.parse(args.at, trace, Bookmarks(args.trace).places)
        engine.prepare()
        timeline = Timeline(trace)
        travel.seek(timeline, at)
        made, lacks = program(timeline.machine)
        if lacks:
            complain(lacks)
        names = {"prog": made, "machine": timeline.machine}
        if args.code is not None:
            exec(compile(args.code, "<-c>", "exec"), names)  # noqa: S102  # the user's own words
        elif args.script is not None:
            sys.argv = [args.script]
            runpy.run_path(args.script, init_globals=names, run_name="__main__")
        else:
            from drgn.cli import run_interactive

            run_interactive(made)
    return EXIT_OK
