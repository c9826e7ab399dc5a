"""SQL over the tables of a trace, by DuckDB, which reads the Arrow tables where they lie.

Every table of the trace is a table of the same name; `accesses` and so on are loaded only when the
query names them. The connection is locked down before a query runs: no files, no network, no
extensions, for a query may come with a trace from somebody else.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import InputFileError, WorkbenchError
from workbench.trace import tables

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

_WORD: Final = re.compile(r"\w+")
DESCRIPTIONS: Final = {
    "accesses": "every port, MMIO and configuration access",
    "exits": "every other exit from guest code",
    "interrupts": "interrupts and exceptions delivered to the guest",
    "dma": "transfers between devices and guest memory",
    "irq_lines": "level changes of interrupt lines",
    "requests": "requests to devices: begin, update, end",
    "inputs": "what came from outside: the replay log",
    "console": "output of the serial ports and other consoles",
    "digests": "digests of the machine's state",
}


class QueryError(WorkbenchError):
    """A query that DuckDB does not take."""


def schema() -> Iterator[tuple[str, str, str]]:
    """Give table, column and SQL type of each column."""
    names = {"string": "varchar", "bool": "boolean", "binary": "blob", "int64": "bigint",
             "uint64": "ubigint", "uint32": "uinteger", "uint16": "usmallint", "uint8": "utinyint",
             "int32": "integer", "int16": "smallint"}  # fmt: skip
    for spec in tables.TABLES:
        for column in spec.columns:
            yield spec.name, column.name, names[column.type]


def connect(
    trace: Trace | Sequence[Trace], names: set[str] | None = None, *, paths: bool = False
) -> Any:
    """Make a DuckDB connection that has the tables of a trace, or some of them.

    Tables of several traces are one after the other; with `paths` a last column `trace` says which
    trace a row is from. Raises `InputFileError` when DuckDB is not installed.
    """
    try:
        duckdb = importlib.import_module("duckdb")
    except ImportError:
        raise InputFileError("queries need DuckDB (pip install duckdb)") from None
    traces = trace if isinstance(trace, Sequence) else [trace]
    connection = duckdb.connect(":memory:")
    for spec in tables.TABLES:
        if names is None or spec.name in names:
            connection.register(spec.name, _together(traces, spec.name, paths))
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def _together(traces: Sequence[Trace], name: str, paths: bool) -> pa.Table:
    import pyarrow as pa

    parts = []
    for trace in traces:
        table = trace.table(name)
        if paths:
            codes = pa.repeat(pa.scalar(0, pa.int32()), table.num_rows)
            which = pa.DictionaryArray.from_arrays(codes, pa.array([trace.path]))
            table = table.append_column("trace", which)
        parts.append(table)
    return pa.concat_tables(parts).unify_dictionaries()


def query(trace: Trace | Sequence[Trace], sql: str, *, paths: bool = False) -> pa.Table:
    """Run a query and give its result as an Arrow table; raises `QueryError`."""
    import pyarrow as pa

    words = {word.lower() for word in _WORD.findall(sql)}
    connection = connect(trace, words & set(tables.BY_NAME), paths=paths)
    duckdb = importlib.import_module("duckdb")
    try:
        found = connection.sql(sql)
        return pa.table({}) if found is None else found.to_arrow_table()
    except duckdb.Error as error:
        raise QueryError(f"the query failed: {_sentence(str(error))}") from None
    finally:
        connection.close()


def _sentence(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not set(line) <= {"^"} and not line.startswith("LINE ")]
    return " ".join(kept) or "unknown error"
