"""What gdb reads piece by piece with `qXfer` ("Debugging with GDB", appendix E.4).

`workbench-symbols` is ours: the symbols of a Linux guest as they are now, an ELF file; gdb's
command `wb-symbols` takes it over this connection.
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.gdbstub import packets
from workbench.gdbstub.framing import MAX_PACKET, escape

__all__ = ["Transfers"]

_UNKNOWN, _NOTHING, _MALFORMED = b"", b"E00", b"E01"
Make = Callable[[], bytes | None]


class Transfers:
    """Objects by (name, annex); each is made when its first piece is asked for."""

    def __init__(self, objects: dict[tuple[bytes, bytes], Make]) -> None:
        self._objects = objects
        self._kept: dict[tuple[bytes, bytes], bytes] = {}

    def features(self) -> list[bytes]:
        """For the answer to qSupported."""
        return [b"qXfer:%s:read+" % name for name in dict.fromkeys(n for n, _ in self._objects)]

    def forget(self) -> None:
        """Another debugger begins."""
        self._kept.clear()

    def read(self, args: bytes) -> bytes:
        """The answer to `qXfer:OBJECT:read:ANNEX:OFFSET,LENGTH`."""
        parts = args.split(b":")
        if len(parts) != 4 or parts[1] != b"read":
            return _UNKNOWN
        if not any(parts[0] == name for name, _ in self._objects):
            return _UNKNOWN
        key = (parts[0], parts[2])
        start, _, length = parts[3].partition(b",")
        try:
            at, count = packets.hex_number(start), packets.hex_number(length)
        except ValueError:
            return _MALFORMED
        if key not in self._objects:
            return _NOTHING
        if at == 0 or key not in self._kept:
            found = self._objects[key]()
            if found is None:
                return _NOTHING
            self._kept[key] = found
        data = self._kept[key]
        piece = data[at : at + min(count, MAX_PACKET // 2)]
        return (b"m" if at + len(piece) < len(data) else b"l") + escape(piece)
