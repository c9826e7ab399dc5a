"""`workbench checkpoint`: keep states of the machine in a trace, for quick seeks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from workbench.cli import engine, text
from workbench.errors import EXIT_OK

_STEPS = 100
EXAMPLES = """\
examples:
  workbench checkpoint boot.wbt
  workbench checkpoint boot.wbt --every 20M

The trace is replayed once and written anew beside itself; it is replaced at the end, if the replay
came to the recorded state. gdb, tui and inspect then start at the nearest checkpoint. Another
version of the engine does not use them: run this again.
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "checkpoint", help="add checkpoints to a trace, for quick seeks",
        description=__doc__, epilog=EXAMPLES,
    )  # fmt: skip
    parser.add_argument("trace", metavar="TRACE", help="a trace (.wbt) that was closed")
    parser.add_argument(
        "--every", metavar="N", type=text.parse_count,
        help="instructions between two (20M, 1G; default: 64 in all, at least 1M apart)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Add them."""
    from workbench.trace import storage
    from workbench.trace.enrich import add_checkpoints
    from workbench.trace.reader import open_trace

    storage.local(args.trace)
    with open_trace(args.trace) as trace:
        engine.prepare()
        before = trace.file_bytes
        with text.progress("checkpoints", _STEPS) as advance:
            shown = 0

            def show(icount: int) -> None:
                nonlocal shown
                while shown < _STEPS * icount // max(trace.icount, 1):
                    shown += 1
                    advance()

            count = add_checkpoints(trace, args.every, show)
    after = Path(storage.local(args.trace)).stat().st_size
    if args.json:
        text.print_json({"file": args.trace, "checkpoints": count, "size_bytes": after})
    else:
        print(
            f"{text.safe(args.trace)}: {count:,} checkpoints,"
            f" {text.size_text(before)} -> {text.size_text(after)}"
        )
    return EXIT_OK
