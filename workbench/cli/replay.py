"""`workbench replay`: run a trace again and verify that it does the same."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from workbench.cli import engine, terminal, text
from workbench.cli import fleet as fleet_options
from workbench.cli.options import CONSOLE_DEVICE, add_serial, serial_output
from workbench.errors import EXIT_DIVERGED, EXIT_INTERRUPTED, EXIT_OK

if TYPE_CHECKING:
    from workbench.trace.reader import Trace
    from workbench.trace.replayer import Replay, ReplayResult

EXAMPLES = """\
examples:
  workbench replay boot.wbt
  workbench replay boot.wbt --serial none --json
  workbench replay boot.wbt --no-verify
  workbench replay traces/ --jobs 4
  workbench replay long.wbt --jobs 4

The exit status is 0 when the replay is identical, 3 when it diverges; then the first event that
differs is named with its instruction count, PC, device, register and both values. A trace that was
cut is replayed up to its end. One trace with checkpoints ('workbench checkpoint') is verified in
parts at once with --jobs or --scheduler; its console is not shown then.
"""
_CLUSTER_PARTS = 8


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "replay", help="replay a trace and verify it", description=__doc__, epilog=EXAMPLES
    )
    parser.add_argument("trace", metavar="TRACE", help="a trace (.wbt) or a folder of traces")
    fleet_options.add_fleet(parser)
    add_serial(parser, "where the guest's console goes")
    parser.add_argument("--no-verify", action="store_true", help="do not compare with the log")
    parser.add_argument("--json", action="store_true", help="result as JSON, console not shown")
    parser.add_argument("-q", "--quiet", action="store_true", help="no console, no summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay as the options say."""
    from workbench.trace import storage
    from workbench.trace.reader import open_trace

    if storage.is_folder(args.trace):
        from workbench.cli import replay_many

        return replay_many.run(args)
    with open_trace(args.trace) as trace:
        return replay_trace(trace, args)


def replay_trace(trace: Trace, args: argparse.Namespace) -> int:
    """Replay an open trace; returns the exit status."""
    from workbench.cli.summary import failure_text, print_replay, replay_json
    from workbench.cli.text import complain
    from workbench.trace.replayer import Replay

    if not trace.closed and not args.quiet:
        complain(cut_notice(trace))
    engine.prepare()
    if args.jobs is not None or args.scheduler is not None:
        fleet_options.check(args)
        whole = _in_parts(trace, args)
        if whole is not None:
            return whole
    replay = Replay(trace, verify=not args.no_verify)
    hidden = (args.json or args.quiet) and args.serial is None
    output = None if hidden else serial_output(args.serial)
    with terminal.ending_signals(replay.interrupt, replay.stopped, _last_resort):
        result = run_with_console(replay, output)
    message = failure_text(replay, result)
    if args.json:
        text.print_json(replay_json(trace.path, result, message))
    elif not args.quiet:
        print_replay(trace.path, result)
    if result.stop == "interrupted":
        return EXIT_INTERRUPTED
    if not result.identical:
        complain(message)
        return EXIT_DIVERGED
    return EXIT_OK


def _in_parts(trace: Trace, args: argparse.Namespace) -> int | None:
    """Replay from checkpoints in the trace at once; None if it has to be replayed as a whole."""
    from workbench.cli.summary import print_replay, replay_json
    from workbench.cli.text import complain
    from workbench.trace import parts

    if args.no_verify:
        return None
    most = args.jobs or (_CLUSTER_PARTS if args.scheduler else 1)
    if most > 1 and len(parts.plan(trace, most)) < 2:
        complain(
            "the trace has no checkpoints of this engine, so it is replayed as a whole"
            " ('workbench checkpoint' adds some)"
        )
        return None
    result = parts.verify(trace.path, most, jobs=args.jobs, scheduler=args.scheduler)
    if result is None:
        return None
    if args.json:
        text.print_json(replay_json(trace.path, result, ""))
    elif not args.quiet:
        print_replay(trace.path, result)
    return EXIT_OK


def _last_resort() -> None:
    from workbench.cli.text import complain

    complain("the guest's machine code does not come back")
    os._exit(EXIT_INTERRUPTED)


def run_with_console(replay: Replay, output: int | None) -> ReplayResult:
    """Run a replay with what the guest prints on a file descriptor."""
    if output is not None:
        console = terminal.ConsoleOutput(CONSOLE_DEVICE, output, replay.interrupt)
        replay.observer.console_sink = console.sink
        result = replay.run()
        if not console.ends_line:
            console.write(b"\n")
        return result
    return replay.run()


def cut_notice(trace: Trace) -> str:
    """Say that a trace was cut or is not whole yet, and what there is."""
    more = f" ({trace.problem})" if trace.problem else ""
    what = "is being recorded" if trace.state == "recording" else "was cut"
    return (
        f"{trace.path} {what}: it is complete up to instruction {trace.icount:,},"
        f" {trace.events:,} events{more}"
    )
