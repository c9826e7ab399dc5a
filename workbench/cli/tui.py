"""`workbench tui`: a trace on screen."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from workbench.cli import engine
from workbench.errors import EXIT_OK, UsageError

EXAMPLES = """\
examples:
  workbench tui boot.wbt
  workbench tui boot.wbt --at 1.2G
  workbench tui boot.wbt --filter 'device=ide0* and write'

? lists every key. Layouts are kept in $XDG_CONFIG_HOME/workbench/tui.json.
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "tui", help="look at a trace on screen: step, filter, move through time",
        description=__doc__, epilog=EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("traces", metavar="TRACE", nargs="*", help="a trace (.wbt)")
    add("--at", metavar="POSITION", help="start there: 1234567, 1.2G, 50%%, end, access:17")
    add("--filter", metavar="EXPRESSION", help="show only accesses that match")
    add("--theme", choices=("auto", "dark", "light", "mono"), help="colours (default: auto)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the screen."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("expected a terminal; 'workbench log' writes to a file or a pipe")
    if len(args.traces) != 1:
        raise UsageError("expected a trace")
    from workbench.trace.reader import open_trace

    with open_trace(args.traces[0]) as trace:
        _show(args, trace)
    # Threads of the machine may be in guest code, which does not come back when asked to.
    sys.stdout.flush()
    sys.stderr.flush()
    if os.environ.get("WORKBENCH_TUI_RETURNS") is None:
        os._exit(EXIT_OK)
    return EXIT_OK


def _show(args: argparse.Namespace, trace: Any) -> None:
    from workbench.tui import commands, layout
    from workbench.tui.app import TuiApp
    from workbench.tui.session import Session
    from workbench.tui.view import PANES, View
    from workbench.tui.worker import Worker

    engine.prepare()
    path = layout.settings_path()
    settings = layout.load(path, frozenset(kind.name for kind in PANES))
    app: TuiApp | None = None

    def post(call: Any) -> None:
        if app is not None:
            app.post(call)

    session = Session(trace, lambda name, failed: Worker(name, post, failed))
    view = View(session, settings, path)
    if args.theme:
        view.theme = args.theme
    if args.at:
        session.go(commands.position(view, args.at), remember=False)
    if args.filter:
        session.set_filter(args.filter)
    app = TuiApp(view)
    try:
        app.run(session.start)
    finally:
        session.close()
