"""Large data in plain Parquet: what Arrow reads is what was put in, and data are not copied."""

from __future__ import annotations

import random

from workbench.trace import bulk, tables
from workbench.trace.writer import _shrinks

INPUTS = tables.TABLES[tables.INPUT]


def test_arrow_reads_what_was_put_in() -> None:
    rng = random.Random(1)
    sizes = (0, 1, bulk.JOINED_BYTES - 1, bulk.JOINED_BYTES, 3 << 20, 7, *range(100))
    rows = [
        (tables.INPUT, 1 << 40 | n, n * n << 34, "drivé", "fetch", rng.randbytes(size))
        for n, size in enumerate(sizes)
    ]
    seqs = [3 * n for n in range(len(rows))]
    pieces = bulk.encode(INPUTS, seqs, rows)
    table = tables.decode(INPUTS, b"".join(pieces), len(rows), None)
    assert list(tables.event_rows(INPUTS, table)) == rows
    assert table[tables.SEQ].to_pylist() == seqs
    assert {id(piece) for piece in pieces} >= {id(row[-1]) for row in rows[3:5]}
    assert len(pieces) < 8


def test_data_are_compressed_where_a_sample_shrinks() -> None:
    rng = random.Random(2)
    noise, text = rng.randbytes(1 << 17), b"what a file system holds " * 8000
    assert not _shrinks([b"", noise])
    assert _shrinks([b"", text, noise])
