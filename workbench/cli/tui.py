"""`workbench tui`: a trace on screen."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli import engine
from workbench.cli.text import complain
from workbench.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

EXAMPLES = """\
examples:
  workbench tui                               # the demo's trace, with a tour of two minutes
  workbench tui boot.wbt
  workbench tui boot.wbt --at 1.2G
  workbench tui good.wbt bad.wbt
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
    add("traces", metavar="TRACE", nargs="*", help="a trace (.wbt), or two to compare")
    add("--at", metavar="POSITION", help="start there: 1234567, 1.2G, 50%%, end, access:17")
    add("--filter", metavar="EXPRESSION", help="show only accesses that match")
    add("--theme", choices=("auto", "dark", "light", "mono"), help="colours (default: auto)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the screen."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("expected a terminal; 'workbench log' writes to a file or a pipe")
    if len(args.traces) > 2:
        raise UsageError("expected one trace, or two to compare")
    from workbench.tui import guardian

    guardian.stand_by()
    from workbench.trace.reader import open_trace

    status = EXIT_OK
    with contextlib.ExitStack() as stack:
        paths = list(args.traces)
        if not paths:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="workbench-"))
            paths = [_demo(Path(folder) / "demo.wbt")]
        if _show(args, [stack.enter_context(open_trace(path)) for path in paths]):
            status = EXIT_INTERRUPTED
            with contextlib.suppress(OSError):  # the terminal may have gone
                complain("a signal or the loss of the terminal ended it")
    # Threads of the machine may be in guest code, which does not come back when asked to.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _demo(path: Path) -> str:
    """Record the demo guest: what a newcomer looks at."""
    from workbench.cli import demo
    from workbench.cli.record import machine_config
    from workbench.firmware import demo as firmware
    from workbench.trace.guest import Guest
    from workbench.trace.session import Limits, Recording

    config = machine_config(argparse.Namespace(**demo.CONFIG))
    engine.prepare()
    guest = Guest(firmware.image(), kernel_path="demo.elf")
    Recording(str(path), config, guest, limits=Limits(icount=demo.LIMIT_ICOUNT)).run()
    return str(path)


def _show(args: argparse.Namespace, traces: list[Trace]) -> bool:
    """Show the screen until the user leaves; True when a signal ended it."""
    from workbench.trace import position
    from workbench.tui import layout
    from workbench.tui.app import TuiApp
    from workbench.tui.session import Session
    from workbench.tui.view import NAMES, View
    from workbench.tui.worker import Turn, Worker

    engine.prepare()
    path = layout.settings_path()
    settings = layout.load(path, NAMES)
    app: TuiApp | None = None
    early: list[Callable[[], None]] = []

    def post(call: Callable[[], None]) -> None:
        early.append(call) if app is None else app.post(call)

    turn = Turn()

    def make_jobs(name: str, failed: Callable[[str], None]) -> Worker:
        return Worker(name, post, failed, turn)

    sessions = [Session(trace, make_jobs) for trace in traces]
    session = sessions[0]
    view = View(session, settings, path, sessions[1] if len(sessions) == 2 else None)
    view.tour = None if args.traces else 0
    if args.theme:
        view.theme = args.theme
    if args.at:
        session.go(position.parse(args.at, session.trace, session.bookmarks.places), remember=False)
    if args.filter:
        session.set_filter(args.filter)
    app = TuiApp(view, turn)
    for call in early:
        app.post(call)

    def start() -> None:
        for number, one in enumerate(sessions):
            one.start(names=number == 0)
        if view.comparison is not None:
            view.comparison.start()

    try:
        app.run(start)
    finally:
        for one in sessions:
            one.close()
    return app.interrupted
