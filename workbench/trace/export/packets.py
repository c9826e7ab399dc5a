"""Packets of Perfetto's protobuf format: events on tracks, with interned names.

The numbers of fields are those of `TracePacket`, `TrackEvent`, `TrackDescriptor` and `InternedData`
in Perfetto's reference of the trace format.
"""

from __future__ import annotations

from functools import lru_cache
from typing import IO, Final

from workbench.trace.varint import varint

SLICE_BEGIN, SLICE_END, INSTANT, COUNTER = 1, 2, 3, 4
UNIT_COUNT, UNIT_BYTES = 2, 3
_MASK: Final = (1 << 64) - 1
_KEPT: Final = 1 << 14
_SEQUENCE, _GUEST, _PID = 1, 1, 1
_CLEARED, _NEEDED = 1, 2
_NAMES, _ARGUMENTS = 2, 3  # fields of InternedData


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value & _MASK)


number = lru_cache(_KEPT)(_number)
"""Encode a field that is a number; most are small and there again and again."""


@lru_cache(_KEPT)
def head(field: int, length: int) -> bytes:
    """Encode what comes before a field that is a string or a message."""
    return varint(field << 3 | 2) + varint(length)


def block(field: int, data: bytes) -> bytes:
    """Encode a field that is a string or a message."""
    return head(field, len(data)) + data


STAMP: Final = varint(8 << 3)
"""Comes before the time of a packet."""
END_OF_PACKET: Final = number(10, _SEQUENCE)
END_OF_EVENT: Final = number(13, _NEEDED) + END_OF_PACKET
PACKET, EVENT = 1, 11
"""Fields: a packet of the trace, an event of a packet."""


class Packets:
    """Writes packets."""

    def __init__(self, file: IO[bytes], ns_of: float) -> None:
        """`ns_of` is the time of an instruction."""
        self._file = file
        self.ns_of = ns_of
        self._tracks: dict[str, int] = {}
        self._names: dict[tuple[int, str], int] = {}
        self._known: dict[tuple[str, int | str], bytes] = {}
        """Arguments as they are written."""
        self._stored: list[bytes] = []
        self.packets = 0
        self._icount, self._when = -1, b""

    def packet(self, body: bytes) -> None:
        """Write a packet."""
        self._stored.append(block(PACKET, body + END_OF_PACKET))
        self.packets += 1
        if len(self._stored) > 10_000:
            self.flush()

    def many(self, data: bytes | memoryview, count: int) -> None:
        """Write so many whole packets."""
        self.flush()
        self._file.write(data)
        self.packets += count

    def flush(self) -> None:
        """Write what is kept back."""
        self._file.write(b"".join(self._stored))
        self._stored.clear()

    def start(self, title: str) -> None:
        """Write what comes first."""
        process = number(1, _PID) + block(6, title.encode(errors="replace"))
        descriptor = number(1, _GUEST) + block(3, process)
        self.packet(block(60, descriptor) + number(13, _CLEARED) + number(87, 1))

    def track(self, name: str, unit: int | None = None) -> int:
        """Give the number of a track, described at its first use."""
        uuid = self._tracks.get(name)
        if uuid is None:
            uuid = self._tracks[name] = _GUEST + 1 + len(self._tracks)
            descriptor = number(1, uuid) + block(2, name.encode()) + number(5, _GUEST)
            if unit is not None:
                descriptor += block(8, number(3, unit))
            self.packet(block(60, descriptor))
        return uuid

    def name(self, field: int, text: str) -> int:
        """Give the number of a string, stored at its first use."""
        iid = self._names.get((field, text))
        if iid is None:
            iid = self._names[field, text] = 1 + len(self._names)
            entry = number(1, iid) + block(2, text.encode())
            self.packet(block(12, block(field, entry)) + number(13, _NEEDED))
        return iid

    def event(
        self, kind: int, track: int, icount: int, name: str = "", **arguments: int | str
    ) -> None:
        """Write an event of one moment, or the begin or end of a slice."""
        body = self.what(kind, track, name)
        for argument in arguments.items():
            body += self.argument(*argument)
        self._stamped(icount, body)

    def what(self, kind: int, track: int, name: str) -> bytes:
        """Encode the beginning of an event."""
        body = number(9, kind) + number(11, track)
        return body + number(10, self.name(_NAMES, name)) if name else body

    def argument(self, key: str, value: int | str) -> bytes:
        """Encode an argument of an event."""
        known = self._known.get((key, value))
        if known is not None:
            return known
        argument = number(1, self.name(_ARGUMENTS, key))
        argument += block(6, value.encode()) if isinstance(value, str) else number(3, value)
        if len(self._known) > _KEPT:
            self._known.clear()
        found = self._known[key, value] = block(4, argument)
        return found

    def count(self, track: int, icount: int, value: int) -> None:
        """Write a value of a counter."""
        self._stamped(icount, number(9, COUNTER) + number(11, track) + number(30, value))

    def _stamped(self, icount: int, event: bytes) -> None:
        if icount != self._icount:
            self._icount, self._when = icount, _number(8, int(icount * self.ns_of))
        self.packet(self._when + block(EVENT, event) + number(13, _NEEDED))
