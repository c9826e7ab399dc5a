"""``python -m bench.analysis``: how long commands that read a trace take, and how much memory.

Traces of any length are made by repeating the accesses of a recording (a boot of Debian's cloud
kernel unless one is given): 100,000, twice a million (of the second every 997th access is missing
and every 5,003rd has another value), and 50 million. Each command is a process of its own, start-up
included.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import guests
from bench import log_cost
from bench.measure import run
from workbench.trace import tables
from workbench.trace.header import End
from workbench.trace.reader import open_trace
from workbench.trace.writer import TraceWriter

CHUNK_ROWS = 65_536
LIMIT_S = 600.0
SIZES = {"100k": 100_000, "1m": 1_000_000, "50m": 50_000_000}
COMMANDS = (
    ("100k", "stats {100k}"),
    ("100k", "stats {100k} --by register"),
    ("100k", "log {100k}"),
    ("100k", "diff {100k} {100k}"),
    ("1m", "diff {1m} {other} --summary"),
    ("50m", "stats {50m}"),
    ("50m", "stats {50m} --by register"),
    ("50m", "stats {50m} --by value"),
    ("50m", "stats {50m} --by pc,register"),
    ("50m", "log {50m} --tail 20"),
    ("50m", "log {50m} --from 99% --limit 20"),
    ("50m", "log {50m} --register LCR --tail 20"),
    ("50m", "export {50m} --vcd /dev/null"),
    ("50m", "export {50m} --json /dev/null"),
    ("50m", "export {50m} --perfetto /dev/null"),
)


def repeat(source: Path, target: Path, count: int, *, edited: bool = False) -> None:
    """Make a trace of so many accesses; it has no other events, so it cannot be replayed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    spec = tables.BY_NAME["accesses"]
    with open_trace(source) as trace:
        header, end = trace.header, trace.end
        images = {image.role: trace.image(image.role) or b"" for image in header.images}
        table = trace.accesses
        span = trace.icount + 1
    assert end is not None
    schema = pa.schema([(c.name, pa.type_for_alias(c.type), False) for c in spec.columns])
    plain = pa.table([c.cast(f.type) for c, f in zip(table.columns, schema, strict=True)], schema)
    writer = TraceWriter(target, header)
    writer.embed(images, header)
    for rows, times in _pieces(plain.num_rows, count):
        part = plain.take(pa.array(rows))
        if edited:
            part = _edit(part, np.arange(writer.events, writer.events + len(rows)))
        seq = np.arange(writer.events, writer.events + part.num_rows)
        icount = part["icount"].to_numpy() + times[: part.num_rows] * span
        part = part.set_column(0, schema.field("seq"), pa.array(seq))
        part = part.set_column(1, schema.field("icount"), pa.array(icount))
        sink = io.BytesIO()
        pq.write_table(
            part, sink, version="2.6", compression="zstd", compression_level=6, store_schema=False,
            use_dictionary=[c.name for c in spec.columns if c.coding == "dictionary"],
            column_encoding={c.name: c.coding for c in spec.columns if c.coding != "dictionary"},
        )  # fmt: skip
        writer._chunk(spec.chunk, sink.getvalue(), rows=part.num_rows)
        writer.events += part.num_rows
        writer.icount = int(icount[-1])
        writer._mark()
    writer.close(End(writer.icount, end.time_ps, writer.events, "limit", 0, "made", 0.0, ""))


def _pieces(rows: int, count: int) -> Iterator[tuple[Any, Any]]:
    for start in range(0, count, CHUNK_ROWS):
        numbers = np.arange(start, min(start + CHUNK_ROWS, count))
        yield numbers % rows, numbers // rows


def _edit(part: Any, numbers: Any) -> Any:
    import pyarrow as pa

    values = part["value"].to_numpy().copy()
    values[numbers % 5003 == 5002] ^= 1
    place = part.column_names.index("value")
    part = part.set_column(place, part.schema.field(place), pa.array(values))
    return part.filter(pa.array(numbers % 997 != 996))


def main() -> int:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.analysis", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--trace", type=Path, help="repeat the accesses of this recording")
    parser.add_argument("--only", choices=SIZES, action="append", help="traces of this size only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted = options.only or list(SIZES)
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        folder = Path(name)
        source = options.trace
        if source is None:
            guest = guests.ensure("cloud")
            source = folder / "boot.wbt"
            log_cost.record(str(guest.kernel), str(guest.images["boot"]), str(source), log=True)
        paths = {size: folder / f"{size}.wbt" for size in wanted}
        made = [(paths[size], SIZES[size], False) for size in wanted]
        if "1m" in wanted:
            paths["other"] = folder / "other.wbt"
            made.append((paths["other"], SIZES["1m"], True))
        # Elsewhere: the peak of a process begins with the memory of the one that started it.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            for path, count, edited in made:
                pool.submit(repeat, source, path, count, edited=edited).result()
        commands = [text for size, text in COMMANDS if size in wanted]
        found: dict[str, list[tuple[float, float, int]]] = {text: [] for text in commands}
        for _ in range(options.runs):
            for text, results in found.items():
                words = text.format(**paths).split()
                command = [sys.executable, "-m", "workbench", *words]
                done = run(command, log=folder / "log", timeout_s=LIMIT_S)
                assert done.status in (0, 1), done.error
                results.append((done.seconds, done.cpu_seconds, done.peak_bytes))
    rows = {text: [median(column) for column in zip(*r, strict=True)] for text, r in found.items()}
    if options.json:
        names = ("s", "cpu_s", "bytes")
        print(json.dumps({t: dict(zip(names, r, strict=True)) for t, r in rows.items()}))
        return 0
    print(f"{'command':<34}{'seconds':>9}{'CPU':>9}{'MB':>7}")
    for text, (seconds, cpu, peak) in rows.items():
        print(f"{text:<34}{seconds:>9.2f}{cpu:>9.2f}{peak / 1e6:>7.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
