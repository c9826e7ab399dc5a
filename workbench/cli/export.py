"""`workbench export`: a trace for other tools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.cli import symbols as symbol_options
from workbench.cli import text
from workbench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

EXAMPLES = """\
examples:
  workbench export boot.wbt --parquet boot/      # duckdb -c "from 'boot/accesses.parquet'"
  workbench export boot.wbt --json - | jq -c 'select(.table == "interrupts")'
  workbench export boot.wbt --vcd irq.vcd        # interrupt lines, for gtkwave
  workbench export boot.wbt --perfetto t.pftrace # for ui.perfetto.dev
  workbench export boot.wbt --pcapng net.pcapng  # frames both ways, for wireshark
  workbench export boot.wbt --device 'ide*' --speedscope ide.json  # for speedscope.app
  workbench export boot.wbt --folded boot.folded # for flamegraph.pl

Several formats may be written at once. Times are instruction counts times the guest's time for an
instruction; only frames have the guest's own time.
"""
_FORMATS = (
    ("json", "FILE", "JSON lines: every event, in order ('-': stdout)"),
    ("vcd", "FILE", "interrupt lines as waves"),
    ("perfetto", "FILE", "devices, interrupts and counters as tracks (protobuf)"),
    ("pcapng", "FILE", "frames that the guest received and sent"),
)
_STACK_FORMATS = (
    ("speedscope", "FILE", "call chains of the accesses as a profile (JSON; replays the trace)"),
    ("folded", "FILE", "the same as folded stacks, for flame graphs"),
)


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "export", help="write a trace in other formats", description=__doc__, epilog=EXAMPLES
    )
    parser.add_argument("trace", metavar="TRACE", help="a trace (.wbt)")
    parser.add_argument("--parquet", metavar="PATH", help="a folder with a file for each table")
    for name, metavar, help_text in (*_FORMATS, *_STACK_FORMATS):
        parser.add_argument(f"--{name}", metavar=metavar, help=help_text)
    parser.add_argument(
        "--received-only", action="store_true",
        help="for --pcapng: without what the guest sent, for which the trace is replayed",
    )  # fmt: skip
    parser.add_argument(
        "--device", metavar="D", action="append",
        help="for --speedscope and --folded: only this device (may be repeated, may have * and ?)",
    )  # fmt: skip
    symbol_options.add_symbols_at(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write what the options ask for."""
    from workbench.cli.replay import cut_notice
    from workbench.cli.text import complain
    from workbench.trace.reader import open_trace

    names = ("parquet", *(name for name, _, _ in (*_FORMATS, *_STACK_FORMATS)))
    wanted = [(name, getattr(args, name)) for name in names if getattr(args, name) is not None]
    if not wanted:
        raise UsageError(f"expected one of {', '.join(f'--{name}' for name in names)}")
    for name, path in wanted:
        if path == "-" and name != "json":
            raise UsageError(f"expected a file for --{name}, not '-'")
    with open_trace(args.trace) as trace:
        if not trace.closed and not args.quiet:
            complain(cut_notice(trace))
        flame = _flame(trace, args)
        for name, path in wanted:
            if name in ("speedscope", "folded"):
                done = flame(name, path)
            else:
                with text.reading(trace, name):
                    done = export(trace, name, path, sent=not args.received_only)
            if not args.quiet and path != "-":
                complain(f"{path}: {done}")
    return EXIT_OK


def _flame(trace: Trace, args: argparse.Namespace) -> Callable[[str, str], str]:
    """Give what writes call chains; both formats share one replay."""
    from functools import cache

    from workbench.cli import engine, stacks
    from workbench.trace import symbols
    from workbench.trace.export import written
    from workbench.trace.export.flame import write_folded, write_speedscope

    @cache
    def load() -> tuple[Any, Any]:
        at_icount = None if args.symbols_at is None else text.parse_count(args.symbols_at)
        table = symbols.of_trace(trace, at_icount, engine.prepare)
        return stacks.load(trace, args.device or ()), table

    def write(name: str, path: str) -> str:
        found, table = load()
        with written(path) as file:
            if name == "folded":
                return f"{write_folded(trace, found, table, file):,} chains"
            return f"{write_speedscope(trace, found, table, file):,} samples"

    return write


def export(trace: Trace, name: str, path: str, *, sent: bool = True) -> str:
    """Write one format; says in a few words what was written."""
    from workbench.trace.export import written
    from workbench.trace.export.jsonl import write_json_lines
    from workbench.trace.export.pcapng import write_pcapng
    from workbench.trace.export.perfetto import write_perfetto
    from workbench.trace.export.vcd import write_vcd

    if name == "parquet":
        from workbench.trace.export.parquet import write_parquet

        rows = write_parquet(trace, path)
        return f"{len(rows)} tables, {sum(rows.values()):,} rows"
    if path == "-":
        return f"{write_json_lines(trace, sys.stdout.buffer):,} events"
    write, unit = {
        "json": (write_json_lines, "events"),
        "vcd": (write_vcd, "changes"),
        "perfetto": (write_perfetto, "packets"),
        "pcapng": (write_pcapng, "frames"),
    }[name]
    if name == "pcapng" and sent:
        from workbench.trace.export.frames import sent_frames

        frames = sent_frames(trace)
        write = partial(write_pcapng, sent=frames)
    with written(path) as file:
        count = write(trace, file)
        size = file.tell() if file.seekable() else 0
    return f"{count:,} {unit}" + (f", {text.size_text(size)}" if size else "")
