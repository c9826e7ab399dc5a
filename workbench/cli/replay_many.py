"""`workbench replay FOLDER`: every trace of a folder, verified on all cores or on a cluster."""

from __future__ import annotations

import argparse
from typing import Any

from workbench.cli import engine, text
from workbench.cli import fleet as fleet_options
from workbench.errors import EXIT_BAD_INPUT, EXIT_DIVERGED, EXIT_OK


def replay_one(path: str, verify: bool) -> dict[str, Any]:
    """Replay one trace; runs in any process."""
    from workbench.cli.summary import failure_text
    from workbench.trace.reader import open_trace
    from workbench.trace.replayer import Replay

    with open_trace(path) as trace:
        replay = Replay(trace, verify=verify)
        result = replay.run()
        problem = failure_text(replay, result)
        return {
            "trace": path,
            "identical": result.identical,
            "instructions": trace.icount,
            "problem": problem,
        }


def run(args: argparse.Namespace) -> int:
    """Replay all, and show a table; gives the worst exit status."""
    from workbench.cli.text import complain
    from workbench.trace import fleet

    fleet_options.check(args)
    engine.prepare()
    paths = fleet.find([args.trace])
    results = fleet_options.each(args, replay_one, paths, not args.no_verify)
    found, failed = fleet_options.values(results)
    rows = [row for _, row in found]
    if args.json:
        text.print_json({"traces": rows})
    elif not args.quiet:
        cells = [
            (
                row["trace"],
                "identical" if row["identical"] else "diverged",
                f"{row['instructions']:,}",
            )
            for row in rows
        ]
        good = sum(row["identical"] for row in rows)
        title = f"{good:,} of {len(rows):,} replays are identical"
        text.print_table(title, ("trace", "", "instructions"), cells, right=(2,))
    for row in rows:
        if row["problem"]:
            complain(f"{row['trace']}: {row['problem']}")
    if failed:
        return EXIT_BAD_INPUT
    return EXIT_OK if all(row["identical"] for row in rows) else EXIT_DIVERGED
