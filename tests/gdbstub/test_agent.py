"""Agent expressions: each operation, and that no bytecode can hurt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.gdbstub.agent import AgentError, Context, format_text, run, verify

MEMORY = {0x1000: b"\xf0\xff\xff\xff\x01\0\0\0hello\0"}
M = (1 << 64) - 1


def memory(address: int, size: int) -> bytes | None:
    for start, data in MEMORY.items():
        if start <= address < start + len(data):
            return data[address - start : address - start + size]
    return None


def value(code: str) -> int:
    raw = bytes.fromhex(code)
    verify(raw)
    return run(raw, Context(lambda n: n * 10, memory))


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("22 05 27", 5),
        ("23 0102 27", 0x102),
        ("24 01020304 27", 0x1020304),
        ("25 ffffffffffffffff 27", M),
        ("22 05 22 03 02 27", 8),
        ("22 03 22 05 03 27", M - 1),
        ("22 03 22 05 04 27", 15),
        ("22 08 16 08 22 fb 16 08 22 02 05 27", M - 1),  # -5 / 2 rounds towards zero
        ("22 09 22 02 06 27", 4),
        ("22 f9 16 08 22 02 07 27", M),  # -7 % 2
        ("22 09 22 04 08 27", 1),
        ("22 01 22 08 09 27", 256),
        ("22 01 22 80 09 27", 0),
        ("22 f0 16 08 22 04 0a 27", M),
        ("22 f0 22 04 0b 27", 15),
        ("22 00 0e 27", 1),
        ("22 0c 22 0a 0f 27", 8),
        ("22 0c 22 0a 10 27", 14),
        ("22 0c 22 0a 11 27", 6),
        ("22 00 12 27", M),
        ("22 05 22 05 13 27", 1),
        ("22 ff 16 08 22 01 14 27", 1),
        ("22 ff 16 08 22 01 15 27", 0),
        ("23 1000 17 27", 0xF0),
        ("23 1000 18 27", 0xFFF0),
        ("23 1000 19 16 20 27", M - 15),
        ("23 1000 1a 27", 0x1_FFFF_FFF0),
        ("26 0007 27", 70),
        ("22 01 20 0006 27 22 63 27", 99),
        ("22 00 20 0007 22 2a 27", 42),
        ("21 0004 27 22 07 27", 7),
        ("22 07 28 02 27", 14),
        ("22 07 22 08 29 27", 7),
        ("22 07 22 08 2b 27", 7),
        ("22 01 22 02 22 03 33 27", 2),
        ("22 01 22 02 32 01 27", 1),
        ("24 ffffffff 2a 08 27", 255),
        ("22 07 2d 0001 29 2c 0001 27", 7),
        ("23 1000 22 04 0c 22 05 27", 5),
        ("23 1000 0d 04 27", 0x1000),
        ("27", 0),
    ],
)
def test_operations(code: str, result: int) -> None:
    assert value(code) == result


@pytest.mark.parametrize(
    "code", ["", "00", "01", "1b", "22", "23 01", "21 0002 27", "20 00ff", "34 01 00ff 41", "ff 27"]
)
def test_what_is_no_expression(code: str) -> None:
    with pytest.raises(AgentError):
        verify(bytes.fromhex(code))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("02 27", "empty stack"),
        ("22 01", "no end"),
        ("21 0000", "no end within"),
        ("22 01 21 0000", "on the stack"),
        ("22 01 22 00 06 27", "division by zero"),
        ("22 00 1a 27", "no memory at 0x0"),
        ("32 05 27", "empty stack"),
    ],
)
def test_what_cannot_be_evaluated(code: str, why: str) -> None:
    with pytest.raises(AgentError, match=why):
        value(code)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.integers(0, 0x35), max_size=60), st.binary(max_size=20))
def test_any_bytes_end(ops: list[int], more: bytes) -> None:
    code = bytes(ops) + more
    try:
        verify(code)
        run(code, Context(lambda n: n, memory))
    except AgentError:
        pass


@pytest.mark.parametrize(
    ("text", "values", "made"),
    [
        (b"n=%d %u\n", [M, M], "n=-1 4294967295\n"),
        (b"%lx %#lx %p", [M, 255, 16], "ffffffffffffffff 0xff 0x10"),
        (b"%s|%10s|%-6s|%.2s", [0x1008] * 4, "hello|     hello|hello |he"),
        (b"%c%%%hhd", [65, 0x1FF], "A%-1"),
        (b"%s", [0], "(no memory)"),
        (b"%08llx", [0xBEEF], "0000beef"),
        (b"%d", [], "0"),
    ],
)
def test_printf(text: bytes, values: list[int], made: str) -> None:
    assert format_text(text, values, memory) == made
