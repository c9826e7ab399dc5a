"""Parquet: a folder with one file for each table, written group by group."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.errors import InputFileError, os_error_text
from workbench.trace import tables
from workbench.trace.export import written
from workbench.trace.reader import Trace

__all__ = ["write_parquet"]


def write_parquet(trace: Trace, folder: str | os.PathLike[str]) -> dict[str, int]:
    """Write `accesses.parquet` and so on; returns the rows of each. Empty tables get a file too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputFileError(f"{folder} cannot be written: {os_error_text(error)}") from None
    rows: dict[str, int] = {}
    for spec in tables.TABLES:
        schema = pa.schema([(c.name, pa.type_for_alias(c.type), False) for c in spec.columns])
        rows[spec.name] = 0
        names = [c.name for c in spec.columns if c.coding == "dictionary"]
        with (
            written(target / f"{spec.name}.parquet") as file,
            pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=names) as writer,
        ):
            for batch in trace.batches(spec.name):
                pairs = zip(batch.columns, schema, strict=True)
                plain = [column.cast(field.type) for column, field in pairs]
                writer.write_table(pa.table(plain, schema=schema))
                rows[spec.name] += batch.num_rows
    return rows
