"""`workbench dump`: the guest's memory and registers at a moment of the run, as a core file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from workbench.cli import engine, text, travel
from workbench.errors import EXIT_OK, InputFileError, UsageError, os_error_text

EXAMPLES = """\
examples:
  workbench dump boot.wbt --at 1.2G -o vmcore
  drgn -c vmcore                                     # or: crash vmlinux vmcore
  workbench dump boot.wbt --at request:ide0/17 --paging -o core
  gdb -ex 'core-file core' -ex 'symbol-file vmlinux -o 0x38400000'   # bt, x, info registers
  workbench dump boot.wbt --compress -o vmcore.kdump  # for crash and drgn, a part of the size

A position is an instruction count (1234567, 1.2G), 50%, start, end, access:N, request:ide0/17 or
bookmark:NAME. Pages of zeros are holes in the file.
"""
_STEPS = 100


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "dump", help="write guest memory at a moment as a core file", description=__doc__,
        epilog=EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("trace", metavar="TRACE", help="a trace (.wbt)")
    add("-o", "--output", metavar="FILE", required=True, help="the core file to write")
    add("--at", metavar="POSITION", default="end", help="the moment (default: end)")
    add("--paging", action="store_true",
        help="linear addresses as the page tables have them, for gdb")  # fmt: skip
    add("--compress", action="store_true",
        help="kdump's compressed form, for crash, drgn and makedumpfile")  # fmt: skip
    add("--json", action="store_true", help="say what was written as a JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Go there and write it."""
    from dataclasses import asdict

    from workbench import dump
    from workbench.cli.text import complain
    from workbench.trace import position
    from workbench.trace.bookmarks import Bookmarks
    from workbench.trace.reader import open_trace
    from workbench.trace.timeline import Timeline

    if args.paging and args.compress:
        raise UsageError("expected --paging or --compress, not both: kdump's form has no linear"
                         " addresses")  # fmt: skip
    target = Path(args.output)
    try:
        if target.is_dir() or not target.parent.is_dir():
            raise InputFileError(f"{target} cannot be written: it is not a place for a file")
        if target.exists() and Path(args.trace).exists() and target.samefile(args.trace):
            raise UsageError(f"{target} is the trace: expected another file for the dump")
    except OSError as error:
        raise InputFileError(f"{target} cannot be written: {os_error_text(error)}") from None
    with open_trace(args.trace) as trace:
        at = position.parse(args.at, trace, Bookmarks(args.trace).places)
        engine.prepare()
        timeline = Timeline(trace)
        travel.seek(timeline, at)
        if timeline.kept.problem:
            complain(timeline.kept.problem)
        total = timeline.machine.cpu.ram_bytes
        with text.progress("writing", _STEPS) as advance:
            done = shown = 0

            def show(count: int) -> None:
                nonlocal done, shown
                done += count
                while shown < _STEPS * done // total:
                    shown += 1
                    advance()

            made = dump.write(
                timeline.machine, target, paging=args.paging, compress=args.compress, progress=show
            )
    if args.json:
        text.print_json(asdict(made))
    else:
        print("\n".join(text.safe(line) for line in made.text.splitlines()))
    return EXIT_OK
