"""Packets of the gdb remote protocol as bytes: `$data#checksum`, acknowledgements, escapes.

Without I/O: bytes in, events out. The manual is "Debugging with GDB", appendix E (E.1 Overview).
"""

from __future__ import annotations

import enum

MAX_PACKET = 1 << 16
_ESCAPED = frozenset(b"#$}*")
_START, _END, _ESCAPE, _INTERRUPT = 0x24, 0x23, 0x7D, 0x03


class Signal(enum.Enum):
    """What is no packet."""

    INTERRUPT = "interrupt"
    """The byte 0x03: Ctrl-C."""


Event = bytes | Signal


def escape(data: bytes) -> bytes:
    """Escape binary data for a packet."""
    if not _ESCAPED.intersection(data):
        return data
    out = bytearray()
    for byte in data:
        if byte in _ESCAPED:
            out += bytes((_ESCAPE, byte ^ 0x20))
        else:
            out.append(byte)
    return bytes(out)


def unescape(data: bytes) -> bytes:
    """Undo `escape`; an escape character at the end stands for nothing."""
    if _ESCAPE not in data:
        return data
    out = bytearray()
    escaped = False
    for byte in data:
        if escaped:
            out.append(byte ^ 0x20)
            escaped = False
        elif byte == _ESCAPE:
            escaped = True
        else:
            out.append(byte)
    return bytes(out)


def frame(payload: bytes) -> bytes:
    """Make a packet of a payload whose binary parts are escaped."""
    return b"$%s#%02x" % (payload, sum(payload) & 0xFF)


class Framing:
    """One connection's bytes: `feed` gives events, `take` what has to be sent."""

    def __init__(self) -> None:
        self.acks = True
        self._buffer = bytearray()
        self._out = bytearray()
        self._last = b""

    def send(self, payload: bytes) -> None:
        """Send a packet; it is repeated if the peer did not understand it."""
        self._last = frame(payload)
        self._out += self._last

    def take(self) -> bytes:
        """Give the bytes to send and forget them."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes of the peer; packets that are damaged or too long are refused."""
        self._buffer += data
        events: list[Event] = []
        while self._buffer:
            first = self._buffer[0]
            if first == _START:
                end = self._buffer.find(_END)
                if end < 0 or end + 3 > len(self._buffer):
                    if len(self._buffer) > 2 * MAX_PACKET + 4:
                        self._buffer.clear()
                        self._refuse()
                    return events
                payload = bytes(self._buffer[1:end])
                check = bytes(self._buffer[end + 1 : end + 3])
                del self._buffer[: end + 3]
                if len(payload) > 2 * MAX_PACKET or not self._good(payload, check):
                    self._refuse()
                    continue
                if self.acks:
                    self._out += b"+"
                events.append(payload)
                continue
            del self._buffer[0]
            if first == _INTERRUPT:
                events.append(Signal.INTERRUPT)
            elif first == 0x2D and self.acks:
                self._out += self._last
        return events

    def _good(self, payload: bytes, check: bytes) -> bool:
        if not self.acks:
            return True
        try:
            return int(check, 16) == sum(payload) & 0xFF
        except ValueError:
            return False

    def _refuse(self) -> None:
        if self.acks:
            self._out += b"-"
