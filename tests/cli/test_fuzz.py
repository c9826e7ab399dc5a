"""Wrong traces through every command that reads them: one sentence or an answer, never a traceback,
and nothing that drives a terminal.

Traces are cut at any byte, have bits flipped, and have contents changed under good checksums:
random bytes, shorter payloads, hostile strings, other numbers of rows.
"""

from __future__ import annotations

import io
import random
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT
from tests.gdbstub.conftest import demo_path
from tests.trace.test_stored import enriched
from workbench.cli.main import main
from workbench.errors import WorkbenchError
from workbench.trace.container import CHUNK, CODEC_ZSTD, encode_chunk
from workbench.trace.reader import open_trace

__all__ = ["demo_path", "enriched"]
HOSTILE = (
    b"\x1b]0;x\x07", b"\x1b[2J", b"\r\n", b"<script>alert(1)</script>", b"\xff\xfe", b"../../x",
    bytes(8), b"\xff" * 8, b"9" * 30,
)  # fmt: skip
COMMANDS = (
    "stats {bad}",
    "stats {bad} --by register,phase --heat --buckets 7",
    "stats {bad} --by request-kind,value",
    "stats {bad} --by request-kind",
    "stats {bad} --html {folder}/r.html",
    "log {bad} --requests",
    "log {bad} --json",
    "requests {bad}",
    "info {bad}",
    "diff {good} {bad}",
    "diff {bad} {bad} --requests --summary",
    "diff {good} {folder} --against-many --jobs 1",
    "export {bad} -q --parquet {folder}/q --json {folder}/j --vcd {folder}/v --perfetto {folder}/p",
    "export {bad} -q --received-only --pcapng {folder}/n",
    "replay {bad} -q --jobs 2",
)
SQL = (
    "select max(icount), max(value) from accesses",
    "select * from requests join dma using (seq)",
)


def damaged(rng: random.Random, path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    how = rng.randrange(5)
    if how == 0:
        return bytes(data[: rng.randrange(len(data))])
    if how == 1:
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    with open_trace(path) as trace:
        chunks = trace.chunks()
        chosen = rng.choice(chunks)
        payload = bytearray(trace.payload(chosen))
    rows = chosen.rows if rng.random() < 0.8 else rng.choice((0, 1, chosen.rows + 1, 1 << 20))
    if how == 2:
        for _ in range(rng.choice((1, 2, 8))):
            payload[rng.randrange(len(payload))] = rng.randrange(256)
    elif how == 3:
        del payload[rng.randrange(len(payload)) :]
    else:
        at, text = rng.randrange(len(payload)), rng.choice(HOSTILE)
        payload[at : at + len(text)] = text
    # Without index and trailer, as of a recorder that was killed; numbers stay.
    parts = [bytes(data[:16])]
    for chunk in chunks:
        if chunk is chosen:
            parts.append(encode_chunk(chunk.kind, chunk.number, bytes(payload), rows=rows))
        else:
            raw = chunk.raw_bytes if chunk.codec == CODEC_ZSTD else None
            body = bytes(data[chunk.offset + CHUNK.size : chunk.end])
            parts.append(
                encode_chunk(chunk.kind, chunk.number, body, rows=chunk.rows, raw_bytes=raw)
            )
    return b"".join(parts)


def run(arguments: list[str]) -> bytes:
    """Run a command; all but our own errors come out of it. Gives what it wrote."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    sentences = ""
    with redirect_stdout(out), redirect_stderr(err):
        try:
            assert main([*arguments, "--debug"]) in (0, 1, 2, 3)
        except (WorkbenchError, OSError) as error:
            sentences = str(error)
    assert "\n" not in sentences
    return b"".join(stream.buffer.getvalue() for stream in (out, err))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_traces(seed: int, enriched: Path, tmp_path: Path) -> None:
    rng = random.Random(seed)
    bases = [ROOT / "traces" / "v2-ata.wbt", ROOT / "traces" / "v1-demo.wbt", enriched]
    bad = tmp_path / "bad.wbt"
    for _ in range(25):
        good = rng.choice(bases)
        bad.write_bytes(damaged(rng, good))
        for command in rng.sample(COMMANDS, 3):
            words = command.format(bad=bad, good=good, folder=tmp_path).split()
            wrote = run(words)
            assert b"\x1b" not in wrote, words
        run(["query", str(rng.choice((bad, tmp_path))), rng.choice(SQL)])
