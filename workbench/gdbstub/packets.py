"""One small parser for each packet: bytes to a value, or None. They know syntax and nothing else.

"Debugging with GDB", appendix E.2 (Packets), E.4 (General Query Packets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from workbench.gdbstub.agent import MOST_BYTES, AgentError, verify
from workbench.gdbstub.framing import MAX_PACKET, unescape


@dataclass(frozen=True, slots=True)
class ReadMemory:
    """`m addr,length` (hex) and `x addr,length` (binary)."""

    address: int
    length: int
    binary: bool = False


@dataclass(frozen=True, slots=True)
class WriteMemory:
    """`M addr,length:hex` and `X addr,length:binary`."""

    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ReadRegisters:
    """`g`."""


@dataclass(frozen=True, slots=True)
class WriteRegisters:
    """`G hex`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ReadRegister:
    """`p n`."""

    number: int


@dataclass(frozen=True, slots=True)
class WriteRegister:
    """`P n=hex`."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """`Z type,addr,kind` and `z ...`; types: 0 and 1 execution, 2 write, 3 read, 4 access."""

    type: int
    address: int
    kind: int
    insert: bool
    conditions: tuple[bytes, ...] = ()
    """Agent expressions, one of which has to be true."""
    commands: tuple[bytes, ...] = ()
    """Agent expressions to run instead of a stop."""


@dataclass(frozen=True, slots=True)
class Resume:
    """`c`, `s`, `C`, `S`, `bc`, `bs`, and what is left of `vCont`."""

    step: bool
    reverse: bool = False
    address: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """`q name args`, `Q name args`, `v name args`."""

    name: str
    args: bytes


@dataclass(frozen=True, slots=True)
class Other:
    """A packet of one letter: `?`, `!`, `D`, `k`, `H`, `T`, `r`, `R`."""

    letter: str
    args: bytes


Packet = (
    ReadMemory
    | WriteMemory
    | ReadRegisters
    | WriteRegisters
    | ReadRegister
    | WriteRegister
    | Breakpoint
    | Resume
    | Query
    | Other
)


def hex_number(text: bytes) -> int:
    """Read an unsigned hexadecimal number of at most 64 bits; ValueError for anything else."""
    if not 0 < len(text) <= 16 or not text.isalnum():
        raise ValueError("expected a hexadecimal number")
    return int(text, 16)


def _range(text: bytes) -> tuple[int, int]:
    address, comma, length = text.partition(b",")
    if not comma:
        raise ValueError("expected address,length")
    count = hex_number(length)
    if count > MAX_PACKET:
        raise ValueError("expected a shorter range")
    return hex_number(address), count


def _read(args: bytes) -> Packet:
    return ReadMemory(*_range(args))


def _read_binary(args: bytes) -> Packet:
    return ReadMemory(*_range(args), binary=True)


def _write(args: bytes) -> Packet:
    where, _, text = args.partition(b":")
    address, count = _range(where)
    data = bytes.fromhex(text.decode("ascii"))
    if len(data) != count:
        raise ValueError("expected as many bytes as were announced")
    return WriteMemory(address, data)


def _write_binary(args: bytes) -> Packet:
    where, _, text = args.partition(b":")
    address, count = _range(where)
    data = unescape(text)
    if len(data) != count:
        raise ValueError("expected as many bytes as were announced")
    return WriteMemory(address, data)


def _write_register(args: bytes) -> Packet:
    number, _, value = args.partition(b"=")
    return WriteRegister(hex_number(number), bytes.fromhex(value.decode("ascii")))


def _point(args: bytes, insert: bool) -> Packet:
    place, *lists = args.split(b";")
    kind_of, address, kind = place.split(b",")
    number = hex_number(kind_of)
    if number > 4:
        raise ValueError("expected a type from 0 to 4")
    conditions: list[bytes] = []
    commands: list[bytes] = []
    for text in lists:
        if text.startswith(b"cmds:"):
            _, comma, text = text.removeprefix(b"cmds:").partition(b",")
            if not comma:
                raise ValueError("expected cmds:PERSIST,EXPRESSIONS")
            commands += _expressions(text)
        else:
            conditions += _expressions(text)
    return Breakpoint(
        number, hex_number(address), hex_number(kind), insert, tuple(conditions), tuple(commands)
    )


def _expressions(text: bytes) -> Iterator[bytes]:
    """Agent expressions `Xlength,hex`, one after the other (E.2, Z0)."""
    while text:
        length, comma, rest = text[1:].partition(b",")
        count = hex_number(length)
        if text[:1] != b"X" or not comma or not 0 < count <= MOST_BYTES or 2 * count > len(rest):
            raise ValueError("expected Xlength,expression")
        code = bytes.fromhex(rest[: 2 * count].decode("ascii"))
        if len(code) != count:
            raise ValueError("expected as many bytes as were announced")
        try:
            verify(code)
        except AgentError as error:
            raise ValueError(str(error)) from None
        yield code
        text = rest[2 * count :]


def _resume(args: bytes, step: bool) -> Packet:
    return Resume(step, address=hex_number(args) if args else None)


def _resume_signal(args: bytes, step: bool) -> Packet:
    _, _, address = args.partition(b";")
    return _resume(address, step)


def _reverse(args: bytes) -> Packet:
    if args not in (b"s", b"c"):
        raise ValueError("expected bs or bc")
    return Resume(args == b"s", reverse=True)


def _v(args: bytes) -> Packet:
    if args.startswith(b"Cont;"):
        action = args[5:].split(b";")[0].split(b":")[0]
        if action[:1] in (b"s", b"S", b"r"):
            return Resume(True)
        if action[:1] in (b"c", b"C"):
            return Resume(False)
        raise ValueError("expected an action that vCont? gave")
    return _query(args)


def _query(args: bytes) -> Packet:
    for n, byte in enumerate(args):
        if byte in b":,;":
            return Query(args[:n].decode("ascii"), args[n + 1 :])
    return Query(args.decode("ascii"), b"")


_PARSERS: dict[str, Callable[[bytes], Packet]] = {
    "m": _read,
    "x": _read_binary,
    "M": _write,
    "X": _write_binary,
    "g": lambda args: ReadRegisters(),
    "G": lambda args: WriteRegisters(bytes.fromhex(args.decode("ascii"))),
    "p": lambda args: ReadRegister(hex_number(args)),
    "P": _write_register,
    "Z": lambda args: _point(args, True),
    "z": lambda args: _point(args, False),
    "s": lambda args: _resume(args, True),
    "c": lambda args: _resume(args, False),
    "S": lambda args: _resume_signal(args, True),
    "C": lambda args: _resume_signal(args, False),
    "b": _reverse,
    "v": _v,
    "q": _query,
    "Q": _query,
}


def parse(payload: bytes) -> Packet | None:
    """Parse a packet; None when it is malformed."""
    letter = chr(payload[0]) if payload else ""
    parser = _PARSERS.get(letter)
    try:
        if parser is None:
            return Other(letter, payload[1:])
        if letter in "qQ":
            found = parser(payload[1:])
            assert isinstance(found, Query)
            return Query(letter + found.name, found.args)
        if letter == "v":
            found = parser(payload[1:])
            return Query("v" + found.name, found.args) if isinstance(found, Query) else found
        return parser(payload[1:])
    except ValueError:  # also UnicodeDecodeError
        return None
