"""A table of one trace or of thousands as a stream of Arrow batches, in bounded memory.

DuckDB asks an object for `__arrow_c_stream__` whenever it scans it, and several times if a query
names a table twice. Each time the traces are opened one after the other, and their pieces decoded
in threads, a few ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.trace import tables
from workbench.trace.ahead import ahead, threads
from workbench.trace.reader import Trace, open_trace

if TYPE_CHECKING:
    import pyarrow as pa

TRACE = "trace"
"""The column that says which trace a row is from."""


class Streamed:
    """One table of some traces, given open or by name."""

    def __init__(
        self,
        name: str,
        traces: Sequence[Trace | str],
        columns: Sequence[str],
        *,
        paths: bool,
        broken: dict[str, WorkbenchError] | None = None,
    ) -> None:
        """With `broken`, traces that cannot be opened go there and are left out."""
        import pyarrow as pa

        self._name = name
        self._traces = traces
        self._paths = paths
        self._broken = broken
        fields = list(tables.empty(tables.BY_NAME[name], columns).schema)
        self._columns = [field.name for field in fields]
        if paths:
            which = pa.dictionary(pa.int32(), pa.string())
            fields.append(pa.field(TRACE, which, nullable=False))
        self.schema = pa.schema(fields)
        self.problem: WorkbenchError | KeyboardInterrupt | None = None
        """What ended a scan early."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Begin a scan."""
        import pyarrow as pa

        reader = pa.RecordBatchReader.from_batches(self.schema, self.batches())
        return reader.__arrow_c_stream__(requested_schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Give all rows, trace by trace, in order."""
        try:
            for some in ahead(self._tasks(), threads()):
                yield from some
        except (WorkbenchError, KeyboardInterrupt) as error:
            self.problem = error
            raise

    def _tasks(self) -> Iterator[Callable[[], list[pa.RecordBatch]]]:
        for each in self._traces:
            # One that is opened here is closed with its last task.
            trace = each if isinstance(each, Trace) else self._open(each)
            if trace is not None:
                count = len(trace.pieces(self._name))
                yield from (partial(self._piece, trace, n) for n in range(count))

    def _open(self, path: str) -> Trace | None:
        try:
            return open_trace(path)
        except WorkbenchError as error:
            if self._broken is None:
                raise
            self._broken[path] = error
            return None

    def _piece(self, trace: Trace, number: int) -> list[pa.RecordBatch]:
        import pyarrow as pa

        table = trace.piece(self._name, number, self._columns)
        if self._paths:
            codes = pa.repeat(pa.scalar(0, pa.int32()), table.num_rows)
            which = pa.DictionaryArray.from_arrays(codes, pa.array([trace.path]))
            table = table.append_column(TRACE, which)
        return list(pa.table(table.columns, schema=self.schema).to_batches())
