"""`workbench query`: SQL over the tables of a trace."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from typing import TYPE_CHECKING, Any

from workbench.cli import text
from workbench.errors import EXIT_BAD_INPUT, EXIT_OK, UsageError, WorkbenchError

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[Any, ...]
_AT_ONCE = 1000
_ENDS = 20
EXAMPLES = """\
examples:
  workbench query boot.wbt "select device, count(*) n from accesses group by all order by n desc"
  workbench query boot.wbt "select * from interrupts limit 5" --json
  workbench query boot.wbt "select * from accesses" --csv > accesses.csv
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
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="result as JSON lines")
    form.add_argument("--csv", action="store_true", help="result as CSV, with a line of names")
    form.add_argument(
        "--all", action="store_true", help="every row on a terminal, too, not the first and last"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run a query, or show the schema."""
    if args.schema:
        _show_schema(args)
        return EXIT_OK
    if args.trace is None or args.sql is None:
        raise UsageError("expected a trace and a query, or --schema")
    from workbench.trace import fleet, storage
    from workbench.trace.query import stream

    paths = fleet.find([args.trace])
    folder = storage.is_folder(args.trace)
    broken: dict[str, WorkbenchError] = {}
    show = _json if args.json else _csv if args.csv else _table
    with stream(paths, args.sql, paths=folder, broken=broken if folder else None) as found:
        show(found, args.all or text.plain(sys.stdout))
    for problem in broken.values():
        text.complain(str(problem))
    return EXIT_BAD_INPUT if broken else EXIT_OK


def _rows(batch: pa.RecordBatch) -> list[Row]:
    return list(zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _json(found: pa.RecordBatchReader, _: bool) -> None:
    encode = json.JSONEncoder(default=_plain).encode
    for batch in found:
        lines = [encode(dict(zip(found.schema.names, row, strict=True))) for row in _rows(batch)]
        sys.stdout.write("".join(f"{line}\n" for line in lines))


def _csv(found: pa.RecordBatchReader, _: bool) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(found.schema.names)
    for batch in found:
        writer.writerows([_cell(value) for value in row] for row in _rows(batch))


def _table(found: pa.RecordBatchReader, every: bool) -> None:
    """Print a table. A long result has the widths of its first rows and its count at the end; or,
    if not `every` row is wanted, its first and last rows.
    """
    first: list[Row] = []
    for batch in found:
        first += _rows(batch)
        if len(first) > _AT_ONCE:
            break
    if len(first) <= (_AT_ONCE if every else 2 * _ENDS):
        _print(_count(len(first)), found.schema, first)
        return
    if every:
        widths = _print(None, found.schema, first)
        count = len(first)
        for batch in found:
            _print(None, found.schema, rows := _rows(batch), widths)
            count += len(rows)
        print(_count(count))
        return
    count, last = len(first), first[-_ENDS:]
    with text.progress("rows", None) as advance:
        for batch in found:
            count += batch.num_rows
            last = last[batch.num_rows :] + _rows(batch[-_ENDS:])
            advance()
    gap: Row = ("...",) * len(found.schema.names)
    title = f"{_count(count)} (all of them: --all)"
    _print(title, found.schema, [*first[:_ENDS], gap, *last[-_ENDS:]])


def _print(
    title: str | None, schema: pa.Schema, rows: list[Row], widths: list[int] | None = None
) -> list[int]:
    """Print rows; without a title as plain lines, with these widths or their own, and below the
    names if they have their own.
    """
    from pyarrow import types

    names = [text.safe(name) for name in schema.names]
    cells = [[_cell(value) for value in row] for row in rows]
    right = [n for n, t in enumerate(schema.types) if _is_number(t) or types.is_null(t)]
    if title is not None:
        text.print_table(title, names, cells, right=right)
        return []
    lines = [[text.safe(cell) for cell in row] for row in cells]
    if widths is None:
        lines.insert(0, names)
        widths = text.widths(lines)
    text.print_lines(lines, widths, right)
    return widths


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    return any(is_it(kind) for is_it in (types.is_integer, types.is_floating, types.is_boolean))


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
