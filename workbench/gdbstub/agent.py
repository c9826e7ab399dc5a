"""gdb's agent expressions: bytecode that a stub evaluates at a breakpoint instead of asking gdb.

"Debugging with GDB", appendix F (The GDB Agent Expression Mechanism). The bytecode comes from a
peer: `verify` checks it once, `run` bounds its steps and its stack. Values are 64 bits. Floating
point is not there (gdb makes none); collecting for tracepoints does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MOST_BYTES", "AgentError", "Context", "format_text", "run", "verify"]

MOST_BYTES: Final = 4096
MOST_STEPS: Final = 20_000
MOST_STACK: Final = 256
_MOST_TEXT: Final = 4096
_MASK: Final = (1 << 64) - 1


class AgentError(Exception):
    """An expression that is malformed, or that cannot be evaluated; says why."""


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _quotient(a: int, b: int) -> int:
    """Rounds towards zero."""
    if not b:
        raise AgentError("division by zero")
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


# Operations without operands in the code, by opcode (F.2).
_BINARY: Final[dict[int, Callable[[int, int], int]]] = {
    0x02: lambda a, b: a + b,
    0x03: lambda a, b: a - b,
    0x04: lambda a, b: a * b,
    0x05: lambda a, b: _quotient(_signed(a), _signed(b)),
    0x06: _quotient,
    0x07: lambda a, b: _signed(a) - _signed(b) * _quotient(_signed(a), _signed(b)),
    0x08: lambda a, b: a - b * _quotient(a, b),
    0x09: lambda a, b: a << b if b < 64 else 0,
    0x0A: lambda a, b: _signed(a) >> min(b, 63),
    0x0B: lambda a, b: a >> b if b < 64 else 0,
    0x0F: lambda a, b: a & b,
    0x10: lambda a, b: a | b,
    0x11: lambda a, b: a ^ b,
    0x13: lambda a, b: int(a == b),
    0x14: lambda a, b: int(_signed(a) < _signed(b)),
    0x15: lambda a, b: int(a < b),
}
_LOG_NOT, _BIT_NOT, _TRACE, _TRACE_QUICK, _TRACENZ = 0x0E, 0x12, 0x0C, 0x0D, 0x2F
_EXT, _ZERO_EXT, _TRACE16, _TRACEV, _GETV, _SETV = 0x16, 0x2A, 0x30, 0x2E, 0x2C, 0x2D
_REFS: Final = {0x17: 1, 0x18: 2, 0x19: 4, 0x1A: 8}
_IF_GOTO, _GOTO, _REG, _END, _DUP, _POP, _SWAP = 0x20, 0x21, 0x26, 0x27, 0x28, 0x29, 0x2B
_CONSTS: Final = {0x22: 1, 0x23: 2, 0x24: 4, 0x25: 8}
_PICK, _ROT, _PRINTF = 0x32, 0x33, 0x34
_OPERANDS: Final = {
    **dict.fromkeys(_BINARY, 0), **dict.fromkeys(_REFS, 0), **_CONSTS,
    **dict.fromkeys((_LOG_NOT, _BIT_NOT, _TRACE, _TRACENZ, _END, _DUP, _POP, _SWAP, _ROT), 0),
    **dict.fromkeys((_TRACE_QUICK, _EXT, _ZERO_EXT, _PICK), 1),
    **dict.fromkeys((_IF_GOTO, _GOTO, _REG, _TRACE16, _TRACEV, _GETV, _SETV), 2),
    _PRINTF: 3,
}  # fmt: skip


@dataclass(slots=True)
class Context:
    """What an expression can see: registers by number, memory by linear address."""

    register: Callable[[int], int]
    memory: Callable[[int, int], bytes | None]
    say: Callable[[str], None] = lambda text: None
    variables: dict[int, int] = field(default_factory=dict)


def verify(code: bytes) -> None:
    """Check that all opcodes are known, whole, and jump to opcodes; raises `AgentError`."""
    if not 0 < len(code) <= MOST_BYTES:
        raise AgentError(f"expected 1 to {MOST_BYTES} bytes, not {len(code)}")
    starts, targets = set(), []
    at = 0
    while at < len(code):
        starts.add(at)
        op = code[at]
        if op not in _OPERANDS:
            raise AgentError(f"opcode {op:#04x} at {at}")
        end = at + 1 + _OPERANDS[op]
        if op == _PRINTF and end <= len(code):
            end += int.from_bytes(code[at + 2 : at + 4], "big")
        if end > len(code):
            raise AgentError(f"the operand of opcode {op:#04x} at {at} is cut off")
        if op in (_IF_GOTO, _GOTO):
            targets.append(int.from_bytes(code[at + 1 : at + 3], "big"))
        at = end
    if not starts.issuperset(targets):
        raise AgentError("a jump that does not lead to an opcode")


def run(code: bytes, context: Context) -> int:
    """The value that a verified expression leaves on its stack, 0 if none; raises `AgentError`."""
    stack: list[int] = []
    at = 0
    try:
        for _ in range(MOST_STEPS):
            op = code[at]
            size = _OPERANDS[op]
            operand = int.from_bytes(code[at + 1 : at + 1 + size], "big")
            at += 1 + size
            if op == _END:
                return stack[-1] if stack else 0
            if op in (_IF_GOTO, _GOTO):
                if op == _GOTO or stack.pop():
                    at = operand
            elif op == _PRINTF:
                count, length = operand >> 16, operand & 0xFFFF
                _printf(stack, context, count, code[at : at + length])
                at += length
            else:
                _step(op, operand, stack, context)
            if len(stack) > MOST_STACK:
                raise AgentError(f"more than {MOST_STACK} values on the stack")
    except IndexError:
        raise AgentError("an empty stack, or no end") from None
    raise AgentError(f"no end within {MOST_STEPS:,} steps")


def _step(op: int, operand: int, stack: list[int], context: Context) -> None:
    binary = _BINARY.get(op)
    if binary is not None:
        b, a = stack.pop(), stack.pop()
        stack.append(binary(a, b) & _MASK)
    elif op in _CONSTS:
        stack.append(operand)
    elif op in _REFS:
        address, size = stack.pop(), _REFS[op]
        data = context.memory(address, size)
        if data is None or len(data) != size:
            raise AgentError(f"no memory at {address:#x}")
        stack.append(int.from_bytes(data, "little"))
    elif op == _REG:
        stack.append(context.register(operand) & _MASK)
    elif op in (_EXT, _ZERO_EXT):
        value = stack.pop()
        if 0 < operand < 64:
            low = value & (1 << operand) - 1
            negative = op == _EXT and low >> (operand - 1)
            value = low - (1 << operand) & _MASK if negative else low
        stack.append(value)
    else:
        _shuffle(op, operand, stack, context)


def _shuffle(op: int, operand: int, stack: list[int], context: Context) -> None:
    if op == _LOG_NOT:
        stack.append(int(not stack.pop()))
    elif op == _BIT_NOT:
        stack.append(~stack.pop() & _MASK)
    elif op == _DUP:
        stack.append(stack[-1])
    elif op == _POP:
        stack.pop()
    elif op == _SWAP:
        stack[-1], stack[-2] = stack[-2], stack[-1]
    elif op == _ROT:
        stack[-3], stack[-2], stack[-1] = stack[-1], stack[-3], stack[-2]
    elif op == _PICK:
        if operand >= len(stack):
            raise AgentError("an empty stack, or no end")
        stack.append(stack[-1 - operand])
    elif op == _GETV:
        stack.append(context.variables.get(operand, 0))
    elif op == _SETV:
        context.variables[operand] = stack[-1]
    elif op in (_TRACE, _TRACENZ):
        stack.pop()
        stack.pop()


def _printf(stack: list[int], context: Context, count: int, text: bytes) -> None:
    stack.pop()  # function and channel of the host's printf
    stack.pop()
    values = [stack.pop() for _ in range(count)]
    context.say(format_text(text.rstrip(b"\0"), values, context.memory))


_CONVERSION: Final = re.compile(
    rb"%([-+ #0]*)(\d{0,3})(?:\.(\d{0,3}))?(hh|h|ll|l|z|j|t|L)?([diouxXcsp%])"
)


def format_text(text: bytes, values: list[int], memory: Callable[[int, int], bytes | None]) -> str:
    """What C's printf makes of a format and integers; strings come from guest memory."""
    left = iter(values)

    def convert(match: re.Match[bytes]) -> bytes:
        flags, width, precision, length, kind = match.groups()
        if kind == b"%":
            return b"%"
        value = next(left, 0)
        if kind == b"s":
            found = memory(value, 1000) or b"(no memory)"
            piece = found.partition(b"\0")[0][: int(precision or 1000)]
            return piece.ljust(int(width or 0)) if b"-" in flags else piece.rjust(int(width or 0))
        if kind == b"c":
            return bytes((value & 0xFF,))
        bits = {b"hh": 8, b"h": 16, None: 32}.get(length, 64)
        number = value & (1 << (64 if kind == b"p" else bits)) - 1
        if kind in b"di" and number >> (bits - 1):
            number -= 1 << bits
        shape = "#x" if kind == b"p" else {b"i": "d", b"u": "d"}.get(kind, kind.decode())
        spec = f"%{flags.decode()}{width.decode()}"
        spec += f".{precision.decode()}" if precision is not None else ""
        return (f"{spec}{shape}" % number).encode()

    made = _CONVERSION.sub(convert, text)[:_MOST_TEXT]
    return made.decode("utf-8", "backslashreplace")
