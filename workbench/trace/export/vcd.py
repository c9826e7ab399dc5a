"""VCD: the interrupt lines as waves (IEEE 1364-2005, clause 18), for GTKWave and its like."""

from __future__ import annotations

from itertools import groupby
from typing import IO

from workbench.trace.export import ps_per_insn
from workbench.trace.reader import Trace

__all__ = ["write_vcd"]

_FIRST, _CODES = 33, 94  # identifier codes are made of the printable characters ! to ~


def write_vcd(trace: Trace, file: IO[bytes]) -> int:
    """Write the level of each interrupt line over time; returns the number of changes.

    Several changes at one instruction are one picosecond apart, for a wave shows only the last of
    one time. Before its first change a line has the other level.
    """
    table = trace.table("irq_lines")
    names = sorted(set(table["name"].to_pylist()))
    code_of = {name: _code(number) for number, name in enumerate(names)}
    rows = list(zip(*(table[c].to_pylist() for c in ("icount", "name", "level")), strict=True))
    begin = {name: not level for _, name, level in reversed(rows)}
    head = [
        f"$comment Workbench {_word(trace.header.workbench_version)} $end",
        "$timescale 1 ps $end",
        "$scope module irq $end",
        *(f"$var wire 1 {code_of[name]} {_word(name)} $end" for name in names),
        "$upscope $end",
        "$enddefinitions $end",
        "#0",
        "$dumpvars",
        *(f"{int(begin[name])}{code_of[name]}" for name in names),
        "$end",
    ]
    file.write("\n".join(head).encode() + b"\n")
    scale, last = ps_per_insn(trace), 0
    for icount, changes in groupby(rows, key=lambda row: row[0]):
        lines = []
        for _, name, level in changes:
            last = max(last + 1, icount * scale)
            lines.append(f"#{last}\n{int(level)}{code_of[name]}\n")
        file.write("".join(lines).encode())
    file.write(f"#{max(last + 1, trace.icount * scale)}\n".encode())
    return len(rows)


def _code(number: int) -> str:
    text = ""
    while True:
        text += chr(_FIRST + number % _CODES)
        number = number // _CODES - 1
        if number < 0:
            return text


def _word(text: str) -> str:
    """Make a name that the format can hold: no blanks, no control characters, no commands."""
    safe = "".join(c if "!" <= c <= "~" and c != "$" else "_" for c in text)
    return safe or "_"
