"""`workbench query`: SQL over the tables of a trace."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from workbench.cli import text
from workbench.errors import EXIT_BAD_INPUT, EXIT_OK, UsageError, WorkbenchError

EXAMPLES = """\
examples:
  workbench query boot.wbt "select device, count(*) n from accesses group by all order by n desc"
  workbench query boot.wbt "select * from interrupts limit 5" --json
  workbench query traces/ "select trace, count(*) from accesses group by trace"
  workbench query --schema

A folder stands for all traces in it: one set of tables, with the column trace. Every table is in
the order of seq. docs/analysis.md has more examples. DuckDB runs the query without access to files
and network.
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "query", help="ask a trace in SQL", description=__doc__, epilog=EXAMPLES
    )
    parser.add_argument(
        "trace", metavar="TRACE", nargs="?", help="a trace (.wbt) or a folder of traces, or a URL"
    )
    parser.add_argument("sql", metavar="SQL", nargs="?", help="a query")
    parser.add_argument("--schema", action="store_true", help="show the tables and their columns")
    parser.add_argument("--json", action="store_true", help="result as JSON lines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run a query, or show the schema."""
    if args.schema:
        _show_schema(args)
        return EXIT_OK
    if args.trace is None or args.sql is None:
        raise UsageError("expected a trace and a query, or --schema")
    from workbench.cli.text import complain
    from workbench.trace import fleet, storage
    from workbench.trace.query import query

    paths = fleet.find([args.trace])
    folder = storage.is_folder(args.trace)
    broken: dict[str, WorkbenchError] = {}
    found = query(paths, args.sql, paths=folder, broken=broken if folder else None)
    for problem in broken.values():
        complain(str(problem))
    status = EXIT_BAD_INPUT if broken else EXIT_OK
    names = found.column_names
    rows = list(zip(*(column.to_pylist() for column in found.columns), strict=True))
    if args.json:
        for row in rows:
            line = json.dumps(dict(zip(names, row, strict=True)), default=_plain)
            sys.stdout.write(line + "\n")
        return status
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [
        place
        for place in range(len(names))
        if all(isinstance(row[place], int | float | None) for row in rows)
    ]
    text.print_table(_count(len(rows)), [text.safe(n) for n in names], cells, right=numeric)
    return status


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"


def _show_schema(args: argparse.Namespace) -> None:
    from workbench.trace.query import DESCRIPTIONS, schema

    columns: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in schema():
        columns.setdefault(table, []).append((column, kind))
    if args.json:
        text.print_json({table: dict(pairs) for table, pairs in columns.items()})
        return
    for table, pairs in columns.items():
        text.print_pairs(f"{table}: {DESCRIPTIONS[table]}", pairs)


def _plain(value: object) -> str:
    return bytes(value).hex() if isinstance(value, bytes | bytearray) else str(value)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return _plain(value) if isinstance(value, bytes) else str(value)
