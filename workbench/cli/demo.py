"""`workbench demo`: record the built-in guest, replay it, and show what came out."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from workbench.errors import EXIT_DIVERGED, EXIT_OK, GuestError

EXAMPLES = """\
examples:
  workbench demo
  workbench demo -o demo.wbt && workbench info demo.wbt
"""
LIMIT_ICOUNT = 2_000_000_000
_LIMIT_S = 60.0
CONFIG = {
    "memory": "64",
    "ps_per_insn": 1000,
    "seed": 1,
    "rtc": "2026-01-01T00:00:00",
    "no_reboot": True,
}


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="record and replay the built-in guest",
        description="Records the built-in guest, replays it and verifies the replay. The guest"
        " prints, takes timer interrupts and touches several chips; it needs no files.",
        epilog=EXAMPLES,
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="keep the trace")
    parser.add_argument("--json", action="store_true", help="result as JSON, console not shown")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demonstration."""
    with contextlib.ExitStack() as stack:
        path = args.output
        if path is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="workbench-"))
            path = str(Path(folder) / "demo.wbt")
        return demonstrate(path, args.json, kept=args.output is not None)


def demonstrate(path: str, as_json: bool, kept: bool) -> int:
    """Record to `path`, replay, print."""
    from workbench.cli import engine, info, text
    from workbench.cli.record import machine_config, record_on_terminal
    from workbench.cli.summary import failure_text, replay_json, verdict
    from workbench.cli.text import complain
    from workbench.firmware import demo
    from workbench.trace.guest import Guest
    from workbench.trace.reader import open_trace
    from workbench.trace.replayer import Replay
    from workbench.trace.session import Limits, Recording

    config = machine_config(argparse.Namespace(**CONFIG))
    engine.prepare()
    guest = Guest(demo.image(), kernel_path="demo.elf")
    limits = Limits(icount=LIMIT_ICOUNT, wall_s=_LIMIT_S)
    recording = Recording(path, config, guest, limits=limits)
    outcome = record_on_terminal(recording, None if as_json else 1, read_stdin=False)
    if outcome.stop != "shutdown" or outcome.code > 1:
        raise GuestError(f"the demo did not end as it should: {outcome.stop} {outcome.reason}")
    with open_trace(path) as trace:
        replay = Replay(trace)
        result = replay.run()
        facts = info.describe(trace)
    message = failure_text(replay, result)
    if as_json:
        text.print_json({"recorded": facts, "replayed": replay_json(path, result, message)})
    else:
        info.show(facts)
        text.print_pairs(
            "replay",
            [
                ("result", verdict(result)),
                ("events compared", f"{result.events:,}"),
                ("recorded in", f"{outcome.wall_s:.2f} s"),
                ("replayed in", f"{result.wall_s:.2f} s"),
                ("trace", path if kept else "not kept (-o FILE keeps it)"),
            ],
        )
    if not result.identical:
        complain(message)
        return EXIT_DIVERGED
    return EXIT_OK
