"""SQL over the tables of traces, by DuckDB, which takes Arrow batches as they are decoded.

Every table of a trace is a table of the same name, read only when the query names it, and only the
columns that it uses. The connection is locked down before a query runs: no files, no network, no
extensions, for a query may come with a trace from somebody else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import InputFileError, WorkbenchError
from workbench.trace import tables
from workbench.trace.streams import Streamed

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

BATCH_ROWS: Final = 8192
_INTERRUPTED: Final = "Query interrupted"
"""What DuckDB says in a RuntimeError of its own after Ctrl-C."""
_PROPOSAL = re.compile(r" Did you mean .*")
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


def query(
    trace: Trace | Sequence[Trace | str],
    sql: str,
    *,
    paths: bool = False,
    broken: dict[str, WorkbenchError] | None = None,
) -> pa.Table:
    """Run a query and give its result as an Arrow table; see `stream`."""
    with stream(trace, sql, paths=paths, broken=broken) as found:
        return found.read_all()


@contextlib.contextmanager
def stream(
    trace: Trace | Sequence[Trace | str],
    sql: str,
    *,
    paths: bool = False,
    broken: dict[str, WorkbenchError] | None = None,
) -> Iterator[pa.RecordBatchReader]:
    """Run a query and give its result in batches, as they are asked for; raises `QueryError`.

    Tables of several traces (open, or by name) are one after the other; with `paths` a last column
    `trace` says which trace a row is from. Memory is that of the query, whatever the size of
    traces and result. With `broken`, traces that cannot be opened go there, with the reason, and
    are left out.
    """
    try:
        duckdb = importlib.import_module("duckdb")
    except ImportError:
        raise InputFileError("queries need DuckDB (pip install duckdb)") from None
    import pyarrow as pa

    traces = trace if isinstance(trace, Sequence) else [trace]
    words = {word.lower() for word in _WORD.findall(sql)}
    connection = duckdb.connect(":memory:")
    streams: list[Streamed] = []

    def register(columns: set[str] | None) -> None:
        streams.clear()
        for spec in tables.TABLES:
            if spec.name in words:
                chosen = _chosen(spec, columns)
                streamed = Streamed(spec.name, traces, chosen, paths=paths, broken=broken)
                streams.append(streamed)
                connection.register(spec.name, streamed)

    try:
        register(None)
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        columns = _used(connection, sql)
        if columns is not None:
            register(columns)
        try:
            found = connection.sql(sql)
        except duckdb.BinderException:
            if columns is None:
                raise
            register(None)  # a column is named that is not read: `* exclude (pc)`
            found = connection.sql(sql)
        if found is None:
            yield pa.RecordBatchReader.from_batches(pa.schema([]), [])
            return
        reader = getattr(found, "to_arrow_reader", None) or found.fetch_arrow_reader
        yield reader(BATCH_ROWS)
    except (duckdb.Error, pa.ArrowException, RuntimeError) as error:
        if isinstance(error, duckdb.InterruptException) or str(error) == _INTERRUPTED:
            raise KeyboardInterrupt from None
        if not isinstance(error, duckdb.Error | pa.ArrowException):
            raise
        problem = next((s.problem for s in streams if s.problem is not None), None)
        if problem is not None:
            raise problem from None
        reason = _sentence(str(error))
        if isinstance(error, duckdb.CatalogException):  # it proposes tables of its own
            reason = f"{_PROPOSAL.sub('', reason)} The tables are {', '.join(tables.BY_NAME)}."
        raise QueryError(f"the query failed: {reason}") from None
    finally:
        connection.close()


def _chosen(spec: tables.TableSpec, columns: set[str] | None) -> list[str]:
    chosen = [name for name in spec.column_names() if columns is None or name in columns]
    return chosen or [tables.SEQ]


def _used(connection: Any, sql: str) -> set[str] | None:
    """The columns that a query reads, by DuckDB's own plan; None when it does not say.

    A stream is read with all the columns that it has, so it had better have no others.
    """
    try:
        plan = json.loads(connection.sql(f"explain (format json) {sql}").fetchall()[0][1])
    except Exception:  # whatever is wrong with the query is told when it runs
        return None
    found: set[str] = set()
    scans = 0
    nodes = list(plan) if isinstance(plan, list) else []
    while nodes:
        node = nodes.pop()
        nodes += node.get("children", [])
        if str(node.get("name", "")).endswith("ARROW_SCAN"):
            scans += 1
            columns = node.get("extra_info", {}).get("Projections")
            if columns is None:
                return None
            found |= {columns} if isinstance(columns, str) else set(columns)
    return found if scans else None


def _sentence(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not set(line) <= {"^"} and not line.startswith("LINE ")]
    return " ".join(kept) or "unknown error"
