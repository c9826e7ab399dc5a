"""VCD: interrupt lines and status bits as waves (IEEE 1364-2005, clause 18), for GTKWave."""

from __future__ import annotations

from typing import IO

from workbench.trace.export import ps_per_insn
from workbench.trace.export.signals import changes
from workbench.trace.reader import Trace

__all__ = ["write_vcd"]

_FIRST, _CODES = 33, 94  # identifier codes are made of the printable characters ! to ~


def write_vcd(trace: Trace, file: IO[bytes]) -> int:
    """Write each signal over time; returns the number of changes.

    Several changes at one instruction are one picosecond apart, for a wave shows only the last of
    one time. Before its first change a line of one bit has the other level.
    """
    begin: dict[str, tuple[int, int]] = {}
    for _, name, bits, now in changes(trace):
        if name not in begin:
            begin[name] = (bits, 1 - now if bits == 1 else 0)
    names = sorted(begin)
    code_of = {name: _code(number) for number, name in enumerate(names)}
    head = [
        f"$comment Workbench {_word(trace.header.workbench_version)} $end",
        "$timescale 1 ps $end",
        "$scope module irq $end",
        *(f"$var wire {begin[n][0]} {code_of[n]} {_word(n)} $end" for n in names),
        "$upscope $end",
        "$enddefinitions $end",
        "#0",
        "$dumpvars",
        *(_value(begin[name][0], begin[name][1], code_of[name]) for name in names),
        "$end",
    ]
    file.write("\n".join(head).encode() + b"\n")
    scale, last, count = ps_per_insn(trace), 0, 0
    value = {name: before for name, (_, before) in begin.items()}
    for icount, name, bits, now in changes(trace):
        if value[name] != now:
            value[name] = now
            count += 1
            last = max(last + 1, icount * scale)
            file.write(f"#{last}\n{_value(bits, now, code_of[name])}\n".encode())
    file.write(f"#{max(last + 1, trace.icount * scale)}\n".encode())
    return count


def _value(bits: int, value: int, code: str) -> str:
    return f"{value}{code}" if bits == 1 else f"b{value & (1 << bits) - 1:b} {code}"


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
