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

from workbench.cli import engine, text
from workbench.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError, WorkbenchError

if TYPE_CHECKING:
    from workbench.trace.reader import Trace
    from workbench.tui.live import Live

EXAMPLES = """\
examples:
  workbench tui                               # the demo's trace, with a tour of two minutes
  workbench tui boot.wbt
  workbench tui boot.wbt --at 1.2G
  workbench tui good.wbt bad.wbt
  workbench tui boot.wbt --filter 'device=ide0* and write'
  workbench tui --record --kernel vmlinuz --initrd initrd.gz --append console=ttyS0 -o boot.wbt

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
    add("--record", nargs=argparse.REMAINDER, metavar="...",
        help="record a guest and look at it meanwhile: what follows are options of"
        " 'workbench record'")  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the screen."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("expected a terminal; 'workbench log' writes to a file or a pipe")
    if os.environ.get("TERM") == "dumb":
        raise UsageError("expected a terminal with a cursor that moves, not TERM=dumb")
    if len(args.traces) > 2:
        raise UsageError("expected one trace, or two to compare")
    options = None if args.record is None else _record_options(args)
    from workbench.tui import guardian
    from workbench.tui.pace import Garbage

    guardian.stand_by()
    Garbage.wait()
    interrupted = _look(args) if options is None else _record(args, options)
    if interrupted:
        with contextlib.suppress(OSError):  # the terminal may have gone
            text.complain("a signal or the loss of the terminal ended it")
    # Threads of the machine may be in guest code, which does not come back when asked to.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED if interrupted else EXIT_OK)


def _look(args: argparse.Namespace) -> bool:
    """Show traces that are there; True when a signal ended it."""
    from workbench.trace.reader import open_trace

    with contextlib.ExitStack() as stack:
        paths = list(args.traces)
        if not paths:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="workbench-"))
            paths = [_demo(Path(folder) / "demo.wbt")]
        return _show(args, [stack.enter_context(open_trace(path)) for path in paths])


def _record_options(args: argparse.Namespace) -> argparse.Namespace:
    """The options behind `--record`, which are those of `workbench record`."""
    from workbench.cli import record
    from workbench.cli.main import Parser

    if args.traces or args.at:
        raise UsageError("expected --record without a trace and without --at")
    parser = Parser(prog="workbench tui --record", usage="workbench tui --record [OPTIONS]")
    commands = parser.add_subparsers(parser_class=Parser)
    record.add_parser(commands)
    options: argparse.Namespace = parser.parse_args(["record", *args.record])
    if options.gdb or options.wait:
        raise UsageError("expected --record without --gdb: the screen is the debugger here")
    return options


def _record(args: argparse.Namespace, options: argparse.Namespace) -> bool:
    """Record, and show it; True when a signal ended it."""
    from workbench.cli import record
    from workbench.cli.summary import print_recording
    from workbench.trace.live import LiveTimeline
    from workbench.trace.reader import open_trace
    from workbench.tui.live import Live

    with record.prepared(options) as it:
        recording = it.recording
        budget_bytes = text.parse_size(options.memory_budget or text.CHECKPOINT_BUDGET)
        timeline = LiveTimeline(recording, budget_bytes=budget_bytes)
        live = Live(timeline)
        recording.recorder.flush()
        try:
            with open_trace(options.output) as trace:
                interrupted = _show(args, [trace], live)
        finally:
            outcome = None if live.running else timeline.finish()
        if outcome is not None and not interrupted and not options.quiet:
            print_recording(options.output, outcome)
    return interrupted


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


def _show(args: argparse.Namespace, traces: list[Trace], live: Live | None = None) -> bool:
    """Show the screen until the user leaves; True when a signal ended it."""
    from workbench.trace import position
    from workbench.tui import layout
    from workbench.tui.app import TuiApp
    from workbench.tui.aside import Helper
    from workbench.tui.pace import Turn
    from workbench.tui.session import Session
    from workbench.tui.view import NAMES, View
    from workbench.tui.worker import Worker

    engine.prepare()
    path = layout.settings_path()
    trouble = ""
    try:
        settings = layout.load(path, NAMES)
    except WorkbenchError as error:  # no reason not to show a trace
        settings, trouble = layout.Settings({}), str(error)
    app: TuiApp | None = None
    early: list[Callable[[], None]] = []

    def post(call: Callable[[], None]) -> None:
        early.append(call) if app is None else app.post(call)

    turn = Turn()

    def make_jobs(name: str, failed: Callable[[str], None]) -> Worker:
        return Worker(name, post, failed, turn)

    helper = Helper(post)
    sessions = [Session(trace, make_jobs, live=live, aside=helper) for trace in traces]
    session = sessions[0]
    view = View(session, settings, path, sessions[1] if len(sessions) == 2 else None)
    view.tour = None if args.traces or live is not None else 0
    if args.theme:
        view.theme = args.theme
    if args.at:
        session.go(position.parse(args.at, session.trace, session.bookmarks.places), remember=False)
    if args.filter:
        session.set_filter(args.filter)
    for one in sessions:
        if live is None and one.trace.state != "closed":
            session.say(f"{one.trace.path} was not closed: it is shown as far as it is whole")
    if trouble:
        session.fail(f"{trouble}; the layouts are as they came")
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
