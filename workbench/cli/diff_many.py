"""`workbench diff GOOD FOLDER --against-many`: one trace against each of many, a line each."""

from __future__ import annotations

import argparse
from typing import Any

from workbench.cli import fleet as fleet_options
from workbench.cli import text
from workbench.errors import EXIT_OK


def compare_one(path: str, good: str, exact: bool) -> dict[str, Any]:
    """Compare one trace with the good one; runs in any process."""
    from workbench.trace.compare import Diff
    from workbench.trace.reader import open_trace

    with open_trace(good) as first, open_trace(path) as second:
        diff = Diff(first, second, exact=exact)
        worst = next(iter(diff.by_register()), None)
        return {
            "trace": path,
            "equal": diff.equal,
            "matching": diff.same,
            "unmatched_a": diff.a.rows - diff.same,
            "unmatched_b": diff.b.rows - diff.same,
            "register": None if worst is None else f"{worst.device} {worst.register}",
        }


def run(args: argparse.Namespace, different: int, trouble: int) -> int:
    """Compare, and show a table; gives the worst exit status."""
    from workbench.trace import fleet

    fleet_options.check(args)
    paths = fleet.find([args.second])
    results = fleet_options.each(args, compare_one, paths, args.first, args.exact)
    found, failed = fleet_options.values(results)
    rows = [row for _, row in found]
    if args.json:
        text.print_json({"a": args.first, "traces": rows})
    elif not args.quiet:
        cells = [
            (
                row["trace"],
                "equal" if row["equal"] else "different",
                *(f"{row[name]:,}" for name in ("matching", "unmatched_a", "unmatched_b")),
                row["register"] or "",
            )
            for row in rows
        ]
        columns = ("B", "", "match", "not in B", "not in A", "most at")
        same = sum(row["equal"] for row in rows)
        title = f"{same:,} of {len(rows):,} traces are equal to {args.first}"
        text.print_table(text.safe(title), columns, cells, right=(2, 3, 4))
    if failed:
        return trouble
    return EXIT_OK if all(row["equal"] for row in rows) else different
