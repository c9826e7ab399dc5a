"""`workbench stats`: count the accesses of a trace, with bars and a heat map over time."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from workbench.cli import symbols as symbol_options
from workbench.cli import text
from workbench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from workbench.trace.stats import Count, Stats

EXAMPLES = """\
examples:
  workbench stats boot.wbt
  workbench stats boot.wbt --by register --top 30 --heat
  workbench stats boot.wbt --by function --json
  workbench stats boot.wbt --by request-kind
"""
_BY = ("device", "register", "direction", "value", "pc", "function", "bucket")
_REQUEST_KIND = "request-kind"
_BAR_CELLS = 24
_BUCKETS = 60
_SHADES = " .:-=+*#%@"
_COLORS = ("#1b1f3b", "#2c3e7a", "#2f6f9f", "#2fa08f", "#7fbf5f", "#d8c84a", "#f08a3c", "#f04f4f")


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "stats", help="count the accesses", description=__doc__, epilog=EXAMPLES
    )
    add = parser.add_argument
    add("trace", metavar="TRACE", help="a trace (.wbt)")
    add(
        "--by",
        choices=(*_BY, _REQUEST_KIND),
        default="device",
        help="what to count by (default: device)",
    )
    add("--top", metavar="N", type=int, default=20, help="so many rows (default: 20; 0: all)")
    add("--heat", action="store_true", help="also a heat map of the rows over time")
    add("--buckets", metavar="N", type=int, help=f"buckets of time (default: {_BUCKETS})")
    symbol_options.add_symbols(parser)
    add("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the counts."""
    from workbench.trace import stats
    from workbench.trace.reader import open_trace

    if args.top < 0:
        raise UsageError(f"expected --top 0 or more, not {args.top}")
    buckets = _BUCKETS if args.buckets is None else args.buckets
    if not 1 <= buckets <= 1000:
        raise UsageError(f"expected --buckets from 1 to 1000, not {buckets}")
    if args.by == _REQUEST_KIND:
        from workbench.cli import request_stats

        return request_stats.run(args.trace, args.top, args.json)
    over_time = args.heat or args.buckets is not None or args.by == "bucket"
    with open_trace(args.trace) as trace:
        table = symbol_options.load(args, trace, always=args.by == "function")
        found = stats.count(trace, args.by, table, buckets if over_time else 1)
    counts = found.counts[: args.top] if args.top and args.by != "bucket" else found.counts
    if args.json:
        text.print_json(as_json(args.trace, found, counts, over_time))
        return EXIT_OK
    show_table(found, counts)
    if args.heat and args.by != "bucket":
        show_heat(found, counts)
    return EXIT_OK


def as_json(path: str, found: Stats, counts: list[Count], over_time: bool) -> dict[str, Any]:
    """Make the JSON form."""
    names = {
        "register": ("device", "register"),
        "value": ("device", "register", "value"),
        "bucket": ("from_icount",),
    }.get(found.by, (found.by,))
    rows = []
    for count in counts:
        row: dict[str, Any] = dict(zip(names, count.label, strict=False))
        if found.by == "bucket":
            row["from_icount"] = int(count.label[0])
        row |= {"reads": count.reads, "writes": count.writes}
        if over_time and found.by != "bucket":
            row["over_time"] = count.over_time
        rows.append(row)
    facts = {"file": path, "by": found.by, "accesses": found.total, "labels": len(found.counts)}
    if over_time:
        facts |= {"bucket_icount": found.bucket_icount, "buckets": found.buckets}
    return {**facts, "rows": rows}


def name_of(found: Stats, count: Count) -> str:
    """A label as text."""
    if found.by == "bucket":
        return f"{int(count.label[0]):,}"
    return " ".join(count.label)


def show_table(found: Stats, counts: list[Count]) -> None:
    """Print the counts with bars."""
    cell = "#" if text.plain(sys.stdout) else "█"
    most = max((count.total for count in counts), default=0) or 1
    rows = [
        (
            name_of(found, count), f"{count.reads:,}", f"{count.writes:,}",
            f"{100 * count.total / (found.total or 1):.1f}%",
            cell * round(_BAR_CELLS * count.total / most),
        )
        for count in counts
    ]  # fmt: skip
    hidden = len(found.counts) - len(counts)
    more = f", {hidden:,} more rows not shown" if hidden else ""
    title = f"{found.total:,} accesses by {found.by}{more}"
    name = "from instruction" if found.by == "bucket" else found.by
    text.print_table(title, (name, "reads", "writes", "share", ""), rows, right=(1, 2, 3))


def show_heat(found: Stats, counts: list[Count]) -> None:
    """Print a heat map: a row for each label, a column for each bucket, on a logarithmic scale."""
    from math import log1p

    most = max((n for count in counts for n in count.over_time), default=0)
    names = [text.safe(name_of(found, count)) for count in counts]
    width = max(map(len, names), default=0)
    title = f"over time, {found.bucket_icount:,} instructions a column, at most {most:,} accesses"
    out = sys.stdout
    plain = text.plain(out)
    steps = (len(_SHADES) if plain else len(_COLORS)) - 1
    levels = [
        [0 if not n else max(1, round(steps * log1p(n) / log1p(most))) for n in count.over_time]
        for count in counts
    ]
    if plain:
        print(title, file=out)
        for name, row in zip(names, levels, strict=True):
            print(f"  {name:<{width}}  |{''.join(_SHADES[level] for level in row)}|", file=out)
        return
    from rich.text import Text

    console = text.rich_console(out)
    console.print(Text(title, style="bold"))
    for name, row in zip(names, levels, strict=True):
        line = Text(f"{name:<{width}}  ", style="cyan", no_wrap=True)
        for level in row:
            shade = _SHADES[level * (len(_SHADES) - 1) // steps] if console.no_color else " "
            line.append(shade, style=f"on {_COLORS[level]}")
        console.print(line, overflow="crop", no_wrap=True)
