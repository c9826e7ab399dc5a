"""AML byte code builder: the part of the language that a PC's DSDT needs.

Follows ACPI specification 6.3, chapter 20 ("ACPI Machine Language Specification") and 6.4
("Resource Data Types"). Every function gives the encoding of one term as `bytes`, so a table is
written as one nested expression in the shape of the ASL it stands for:

    scope("\\\\_SB", device("COM1", name("_HID", eisa_id("PNP0501")), name("_UID", 1)))

Wherever a term is expected, a plain `int` stands for its shortest integer encoding and a `str` for
a NameString (a reference to an object), as in ASL. Deliberately not modelled: anything that the
tables of this project do not use (mutexes, events, loops, named fields larger than a region,
external declarations).
"""

from __future__ import annotations

import struct

__all__ = [
    "ARG0",
    "LOCAL0",
    "Term",
    "and_",
    "buffer",
    "create_dword_field",
    "device",
    "dword_memory",
    "eisa_id",
    "else_",
    "field",
    "fixed_memory32",
    "if_",
    "integer",
    "interrupt",
    "io",
    "irq_no_flags",
    "less",
    "method",
    "name",
    "name_string",
    "op_region",
    "or_",
    "package",
    "pkg_length",
    "resource_template",
    "return_",
    "scope",
    "store",
    "string",
    "word_bus_number",
    "word_io",
]

Term = bytes | int | str

LOCAL0 = b"\x60"
ARG0 = b"\x68"

_EXT_OP = b"\x5b"

SYSTEM_MEMORY, SYSTEM_IO, PCI_CONFIG = 0, 1, 2  # RegionSpace, 20.2.5.2
ANY_ACC, BYTE_ACC, WORD_ACC, DWORD_ACC = 0, 1, 2, 3  # AccessType of FieldFlags, 20.2.5.2


def pkg_length(content_bytes: int) -> bytes:
    """The PkgLength in front of `content_bytes` bytes; it counts its own encoding (20.2.4)."""
    if content_bytes + 1 < 0x40:
        return bytes((content_bytes + 1,))
    for follow in (1, 2, 3):
        total = content_bytes + 1 + follow
        if total < 1 << (4 + 8 * follow):
            rest = total >> 4
            return bytes((follow << 6 | total & 0xF,)) + rest.to_bytes(follow, "little")
    raise ValueError(f"expected a package below 256 MiB, not {content_bytes} bytes")


def _packaged(opcode: bytes, content: bytes) -> bytes:
    return opcode + pkg_length(len(content)) + content


def _name_seg(segment: str) -> bytes:
    lead = segment[:1]
    if not (1 <= len(segment) <= 4 and segment.isascii() and segment.replace("_", "A").isalnum()):
        raise ValueError(
            f"expected a name of 1 to 4 letters, digits and underscores, not {segment!r}"
        )
    if lead.isdigit() or segment != segment.upper():
        raise ValueError(f"expected an upper-case name that starts with no digit, not {segment!r}")
    return segment.ljust(4, "_").encode("ascii")


def name_string(path: str) -> bytes:
    """NameString of an ASL path such as `\\_SB.PCI0.ISA` or `^PRQ0` (20.2.2)."""
    body = path.lstrip("\\^")
    prefix = path[: len(path) - len(body)].encode("ascii")
    segments = [_name_seg(segment) for segment in body.split(".")] if body else []
    match len(segments):
        case 0:
            return prefix + b"\x00"
        case 1:
            return prefix + segments[0]
        case 2:
            return prefix + b"\x2e" + segments[0] + segments[1]
        case count:
            return prefix + b"\x2f" + bytes((count,)) + b"".join(segments)


def integer(value: int) -> bytes:
    """Shortest encoding of an unsigned integer: ZeroOp, OneOp, Byte-, Word-, DWord- or QWordConst
    (20.2.3).
    """
    if not 0 <= value < 1 << 64:
        raise ValueError(f"expected an unsigned 64-bit integer, not {value!r}")
    if value < 2:
        return bytes((value,))
    for limit, code, form in ((1 << 8, 0x0A, "<B"), (1 << 16, 0x0B, "<H"), (1 << 32, 0x0C, "<I")):
        if value < limit:
            return bytes((code,)) + struct.pack(form, value)
    return b"\x0e" + struct.pack("<Q", value)


def _term(term: Term) -> bytes:
    if isinstance(term, bytes):
        return term
    return integer(term) if isinstance(term, int) else name_string(term)


def _terms(terms: tuple[Term, ...]) -> bytes:
    return b"".join(_term(term) for term in terms)


def string(text: str) -> bytes:
    """String constant (20.2.3)."""
    return b"\x0d" + text.encode("ascii") + b"\x00"


def eisa_id(identifier: str) -> bytes:
    """Compressed EISA ID such as `PNP0A03`, as a DWordConst (19.3.4, EISAID)."""
    vendor, product = identifier[:3], identifier[3:]
    if len(identifier) != 7 or not vendor.isalpha():
        raise ValueError(f"expected an EISA ID such as PNP0A03, not {identifier!r}")
    packed = 0
    for letter in vendor:
        packed = packed << 5 | ord(letter) - 0x40
    return b"\x0c" + struct.pack(">HH", packed, int(product, 16))


def buffer(data: bytes) -> bytes:
    """DefBuffer whose size is that of its initializer (20.2.5.4)."""
    return _packaged(b"\x11", integer(len(data)) + data)


def package(*elements: Term) -> bytes:
    """DefPackage (20.2.5.4)."""
    return _packaged(b"\x12", bytes((len(elements),)) + _terms(elements))


def name(path: str, value: Term) -> bytes:
    """DefName (20.2.5.1)."""
    return b"\x08" + name_string(path) + _term(value)


def scope(path: str, *body: Term) -> bytes:
    """DefScope (20.2.5.1)."""
    return _packaged(b"\x10", name_string(path) + _terms(body))


def device(path: str, *body: Term) -> bytes:
    """DefDevice (20.2.5.2)."""
    return _packaged(_EXT_OP + b"\x82", name_string(path) + _terms(body))


def method(path: str, arg_count: int, *body: Term, serialized: bool = False) -> bytes:
    """DefMethod with SyncLevel 0 (20.2.5.2)."""
    flags = arg_count | (8 if serialized else 0)
    return _packaged(b"\x14", name_string(path) + bytes((flags,)) + _terms(body))


def op_region(path: str, space: int, offset: int, length_bytes: int) -> bytes:
    """DefOpRegion in address space `space` (20.2.5.2)."""
    return (
        _EXT_OP
        + b"\x80"
        + name_string(path)
        + bytes((space,))
        + integer(offset)
        + integer(length_bytes)
    )


def field(region: str, access: int, *units: tuple[str, int]) -> bytes:
    """DefField of (name, width in bits) units, NoLock and Preserve; an empty name skips its bits
    (20.2.5.2).
    """
    out = name_string(region) + bytes((access,))
    for unit, width in units:
        # FieldElement widths are PkgLength encodings of the plain width, which does not count the
        # encoding's own bytes.
        encoded = bytes((width,)) if width < 0x40 else bytes((0x40 | width & 0xF, width >> 4))
        out += (_name_seg(unit) if unit else b"\x00") + encoded
    return _packaged(_EXT_OP + b"\x81", out)


def create_dword_field(source: Term, byte_index: int, path: str) -> bytes:
    """DefCreateDWordField (20.2.5.2)."""
    return b"\x8a" + _term(source) + integer(byte_index) + name_string(path)


def store(value: Term, target: Term) -> bytes:
    """DefStore (20.2.5.4)."""
    return b"\x70" + _term(value) + _term(target)


def and_(left: Term, right: Term, target: Term = b"\x00") -> bytes:
    """DefAnd; no target by default (20.2.5.4)."""
    return b"\x7b" + _term(left) + _term(right) + _term(target)


def or_(left: Term, right: Term, target: Term = b"\x00") -> bytes:
    """DefOr; no target by default (20.2.5.4)."""
    return b"\x7d" + _term(left) + _term(right) + _term(target)


def less(left: Term, right: Term) -> bytes:
    """DefLLess (20.2.5.4)."""
    return b"\x95" + _term(left) + _term(right)


def if_(predicate: Term, *body: Term) -> bytes:
    """DefIfElse without its Else part (20.2.5.3)."""
    return _packaged(b"\xa0", _term(predicate) + _terms(body))


def else_(*body: Term) -> bytes:
    """DefElse; stands directly behind an `if_` (20.2.5.3)."""
    return _packaged(b"\xa1", _terms(body))


def return_(value: Term) -> bytes:
    """DefReturn (20.2.5.3)."""
    return b"\xa4" + _term(value)


# -- resource descriptors (6.4) ------------------------------------------------------------------


def resource_template(*descriptors: bytes) -> bytes:
    """Buffer of resource descriptors, closed by an End Tag with checksum 0, which means "not
    checked" (6.4.2.9).
    """
    return buffer(b"".join(descriptors) + b"\x79\x00")


def io(port: int, length_bytes: int, alignment: int = 1) -> bytes:
    """I/O Port Descriptor for one fixed range that decodes 16 address bits (6.4.2.5)."""
    return struct.pack("<BBHHBB", 0x47, 1, port, port, alignment, length_bytes)


def irq_no_flags(*irqs: int) -> bytes:
    """IRQ Descriptor without its flags: edge, active high, exclusive (6.4.2.1)."""
    return struct.pack("<BH", 0x22, sum(1 << irq for irq in irqs))


def fixed_memory32(gpa: int, length_bytes: int, *, writable: bool = True) -> bytes:
    """32-bit Fixed Memory Range Descriptor (6.4.3.4)."""
    return struct.pack("<BHBII", 0x86, 9, int(writable), gpa, length_bytes)


def interrupt(
    *gsis: int, level: bool = True, active_low: bool = False, shared: bool = True
) -> bytes:
    """Extended Interrupt Descriptor, consumer (6.4.3.6).  Its first interrupt number lies at byte
    5.
    """
    flags = 1 | (0 if level else 2) | (4 if active_low else 0) | (8 if shared else 0)
    count = len(gsis)
    return struct.pack(f"<BHBB{count}I", 0x89, 2 + 4 * count, flags, count, *gsis)


_MIN_FIXED, _MAX_FIXED = (
    4,
    8,
)  # general flags of address space descriptors, 6.4.3.5; decode is positive, role is producer


def word_bus_number(first: int, last: int) -> bytes:
    """Word Address Space Descriptor, bus number range, producer (6.4.3.5.3)."""
    span = last - first + 1
    return struct.pack(
        "<BHBBBHHHHH", 0x88, 13, 2, _MIN_FIXED | _MAX_FIXED, 0, 0, first, last, 0, span
    )


def word_io(first: int, last: int) -> bytes:
    """Word Address Space Descriptor, I/O range, producer, entire range (6.4.3.5.3, 6.4.3.5.5)."""
    span = last - first + 1
    return struct.pack(
        "<BHBBBHHHHH", 0x88, 13, 1, _MIN_FIXED | _MAX_FIXED, 3, 0, first, last, 0, span
    )


def dword_memory(first: int, last: int, *, cacheable: bool = False) -> bytes:
    """DWord Address Space Descriptor, read-write memory range, producer (6.4.3.5.2, 6.4.3.5.5)."""
    specific = 1 | (2 if cacheable else 0)
    flags = _MIN_FIXED | _MAX_FIXED
    return struct.pack(
        "<BHBBBIIIII", 0x87, 23, 0, flags, specific, 0, first, last, 0, last - first + 1
    )
