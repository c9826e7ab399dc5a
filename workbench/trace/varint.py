"""Numbers of seven bits a byte, the last byte without the top bit: Protobuf's and Thrift's form."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Encode an unsigned number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
