"""`workbench stats`: count the accesses of a trace, with bars and a heat map over time."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from workbench.cli import fleet as fleet_options
from workbench.cli import symbols as symbol_options
from workbench.cli import text
from workbench.errors import EXIT_BAD_INPUT, EXIT_OK, UsageError

if TYPE_CHECKING:
    from workbench.trace.stats import Count, Stats

EXAMPLES = """\
examples:
  workbench stats boot.wbt
  workbench stats boot.wbt --by register --top 30 --heat
  workbench stats boot.wbt --by phase,device
  workbench stats boot.wbt --by function --json
  workbench stats boot.wbt --by request-kind
  workbench stats boot.wbt --by request-kind,register
  workbench stats boot.wbt --html report.html
  workbench stats traces/ more.wbt --by register
  workbench stats s3://bucket/runs --by device

keys: device, register, direction, value, pc, function, phase, bucket (of time); several may be
joined by commas. Phases are told by what a Linux guest prints: early, kernel, user, shutdown. A
folder stands for all traces in it, whose counts are added up. request-kind alone adds up the
requests of one trace; joined with other keys it counts the accesses that belong to each kind.
"""
_BAR_CELLS = 24
_BUCKETS = 60
_SHADES = " .:-=+*#%@"
_COLORS = ("#1b1f3b", "#2c3e7a", "#2f6f9f", "#2fa08f", "#7fbf5f", "#d8c84a", "#f08a3c", "#f04f4f")
_LABELS = {"register": ("device", "register"), "value": ("device", "register", "value")}
_REQUEST_KIND = "request-kind"
_KEYS = (
    "device", "register", "direction", "value", "pc", "function", "phase", "bucket", _REQUEST_KIND,
)  # fmt: skip


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "stats", help="count the accesses", description=__doc__, epilog=EXAMPLES
    )
    add = parser.add_argument
    add("traces", metavar="TRACE", nargs="+", help="traces (.wbt) or folders of traces, or URLs")
    add("--by", metavar="KEY,...", default="device", help="what to count by (default: device)")
    add("--top", metavar="N", type=int, default=20, help="so many rows (default: 20; 0: all)")
    add("--heat", action="store_true", help="also a heat map of the rows over time")
    add("--buckets", metavar="N", type=int, help=f"buckets of time (default: {_BUCKETS})")
    symbol_options.add_symbols(parser)
    fleet_options.add_fleet(parser)
    add("--html", metavar="FILE", help="write a report with pictures, for a browser")
    add("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the counts."""
    from workbench.trace import fleet, stats

    if args.top < 0:
        raise UsageError(f"expected --top 0 or more, not {args.top}")
    buckets = _BUCKETS if args.buckets is None else args.buckets
    if not 1 <= buckets <= 1000:
        raise UsageError(f"expected --buckets from 1 to 1000, not {buckets}")
    fleet_options.check(args)
    by = keys(args.by)
    paths = fleet.find(args.traces)
    if by == (_REQUEST_KIND,):
        if len(paths) != 1:
            raise UsageError(f"expected one trace with --by {_REQUEST_KIND}, not {len(paths)}")
        from workbench.cli import request_stats

        return request_stats.run(paths[0], args.top, args.json)
    if args.html is not None:
        return write_html(args, paths)
    over_time = args.heat or args.buckets is not None or by == ("bucket",)
    width = None
    if over_time and len(paths) > 1:
        ends, _ = fleet_options.values(fleet_options.each(args, _end, paths))
        width = max(1, -(-(max((end for _, end in ends), default=0) + 1) // buckets))
    alone = len(paths) == 1 and args.scheduler is None
    symbols = symbol_options.chosen(args)
    work = (by, buckets if over_time else 1, width, symbols, alone, args.jobs)
    found, failed = fleet_options.values(fleet_options.each(args, count_one, paths, *work))
    total = found[0][1] if len(found) == 1 else stats.merge(part for _, part in found)
    counts = total.counts[: args.top] if args.top and by != ("bucket",) else total.counts
    if args.json:
        text.print_json(as_json([path for path, _ in found], total, counts, over_time))
    elif found:
        show_table(total, counts)
        if args.heat and by != ("bucket",):
            show_heat(total, counts)
    return EXIT_BAD_INPUT if failed else EXIT_OK


def keys(given: str) -> tuple[str, ...]:
    """Read the value of `--by`."""
    found = tuple(given.split(","))
    if found == (_REQUEST_KIND,):
        return found
    for key in found:
        if key not in _KEYS:
            hint = text.meant(key, _KEYS)
            raise UsageError(f"expected --by {', '.join(_KEYS)}, not {key!r}{hint}")
    if len(set(found)) < len(found) or ("bucket" in found and len(found) > 1):
        raise UsageError(f"expected different keys, and bucket alone, not --by {given}")
    return found


def _end(path: str) -> int:
    from workbench.trace.reader import open_trace

    with open_trace(path) as trace:
        return trace.icount


def count_one(
    path: str,
    by: tuple[str, ...],
    buckets: int,
    width: int | None,
    symbols: symbol_options.Choice,
    alone: bool = False,
    jobs: int | None = None,
) -> Stats:
    """Count one trace; runs in any process. One that is `alone` may use so many of its own."""
    from workbench.trace import stats
    from workbench.trace.reader import open_trace

    with open_trace(path) as trace:
        table = symbols.load(trace, always="function" in by)
        shown = text.reading(trace, "accesses") if alone else contextlib.nullcontext()
        with shown:
            return stats.count(trace, by, table, buckets, width, jobs if alone else 1)


def write_html(args: argparse.Namespace, paths: list[str]) -> int:
    """Write the report of one trace."""
    from workbench.cli.text import complain
    from workbench.report import write_report
    from workbench.trace.reader import open_trace

    if len(paths) != 1 or args.json:
        raise UsageError("expected one trace, and no --json, with --html")
    with open_trace(paths[0]) as trace:
        table = symbol_options.load(args, trace)
        with text.reading(trace, "report"):
            size = write_report(trace, args.html, table)
    complain(f"{args.html}: {text.size_text(size)}")
    return EXIT_OK


def as_json(paths: list[str], found: Stats, counts: list[Count], over_time: bool) -> dict[str, Any]:
    """Make the JSON form."""
    names = [name for key in found.by for name in _LABELS.get(key, (key,))]
    by_time = found.by == ("bucket",)
    rows = []
    for count in counts:
        row: dict[str, Any] = dict(zip(names, count.label, strict=False))
        if by_time:
            row = {"from_icount": int(count.label[0])}
        row |= {"reads": count.reads, "writes": count.writes}
        if over_time and not by_time:
            row["over_time"] = count.over_time
        rows.append(row)
    facts: dict[str, Any] = {"file": paths[0]} if len(paths) == 1 else {"files": paths}
    facts |= {"by": ",".join(found.by), "accesses": found.total, "labels": len(found.counts)}
    if over_time:
        facts |= {"bucket_icount": found.bucket_icount, "buckets": found.buckets}
    return {**facts, "rows": rows}


def name_of(found: Stats, count: Count) -> str:
    """A label as text."""
    if found.by == ("bucket",):
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
    by = ",".join(found.by)
    title = f"{found.total:,} accesses by {by}{more}"
    name = "from instruction" if by == "bucket" else by
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
