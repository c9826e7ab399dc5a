"""`workbench qtest`: devices without a guest, driven over QEMU's qtest protocol."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLES = """\
examples:
  workbench qtest -qtest unix:/tmp/q.sock,server=on -drive file=disk.raw,if=ide
  workbench qtest -qtest unix:/tmp/q.sock -device e1000,addr=04.0
  QTEST_QEMU_BINARY=$(command -v workbench-qtest-system-x86_64) ide-test -k --tap

The options are QEMU's; docs/qtest.md lists those that are known.
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand. It has no options of its own: QEMU's begin with one dash."""
    parser = commands.add_parser(
        "qtest",
        help="drive devices without a guest, over QEMU's qtest protocol",
        description=__doc__,
        epilog=EXAMPLES,
        prefix_chars="\0",
        add_help=False,
    )
    parser.add_argument("arguments", nargs="*", metavar="OPTION", help="QEMU's options")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Serve."""
    from workbench.qtest.main import run as serve

    if any(text in ("-h", "--help", "-help") for text in args.arguments):
        args.parser.print_help()
        return 0
    return serve(args.arguments)
