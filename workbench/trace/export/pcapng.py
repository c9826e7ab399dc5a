"""pcapng: the frames that the guest received and sent (IETF draft-ietf-opsawg-pcapng, section 4).

A frame is an input of kind "frame" and so in every trace, with the guest time at which the
controller was given it. Each network controller is an interface. Sent frames are not in a trace;
`sent` takes those that a replay has made again (`frames.sent_frames`). The comment of a frame names
controller, instruction count, request and descriptor.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import IO, Final

from workbench.trace.export.frames import Frame, received_frames
from workbench.trace.reader import Trace

__all__ = ["Frame", "received_frames", "write_pcapng"]

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_ORDER, _UNKNOWN_LENGTH = 0x1A2B3C4D, (1 << 64) - 1
_END, _COMMENT, _USER, _NAME, _RESOLUTION, _FLAGS = 0, 1, 4, 2, 9, 2
_NANOSECONDS = 9
_INBOUND, _OUTBOUND = 1, 2
LINKTYPE_ETHERNET: Final = 1
MAX_FRAME_BYTES: Final = 0x1_0000
_PS_PER_NS, _NS_PER_S = 1000, 10**9


def write_pcapng(trace: Trace, file: IO[bytes], sent: Iterable[Frame] = ()) -> int:
    """Write the frames in order of guest time; returns their number."""
    frames = sorted([*received_frames(trace), *sent], key=lambda f: (f.time_ps, f.icount))
    writer = f"workbench {trace.header.workbench_version}".encode(errors="replace")[:256]
    body = struct.pack("<IHHQ", _ORDER, 1, 0, _UNKNOWN_LENGTH)
    file.write(_block(_SECTION, body, [(_USER, writer)]))
    names = sorted({frame.interface for frame in frames})
    for name in names:
        body = struct.pack("<HHI", LINKTYPE_ETHERNET, 0, 0)
        options = [(_NAME, name.encode()[:256]), (_RESOLUTION, bytes([_NANOSECONDS]))]
        file.write(_block(_INTERFACE, body, options))
    epoch = trace.header.machine.get("rtc_epoch_s")
    start_ns = (epoch if isinstance(epoch, int) and 0 <= epoch < 1 << 33 else 0) * _NS_PER_S
    for number, frame in enumerate(frames):
        when = start_ns + frame.time_ps // _PS_PER_NS & _UNKNOWN_LENGTH
        kept = frame.data[:MAX_FRAME_BYTES]
        body = struct.pack(
            "<5I", names.index(frame.interface), when >> 32, when & 0xFFFF_FFFF,
            len(kept), len(frame.data),
        )  # fmt: skip
        way = "sent" if frame.sent else "received"
        text = f"frame {number}, {way} by {frame.interface} at instruction {frame.icount:,}"
        if frame.request:
            text += f", request {frame.request}, descriptor {frame.head} of queue {frame.queue}"
        direction = _OUTBOUND if frame.sent else _INBOUND
        options = [(_COMMENT, text.encode()), (_FLAGS, struct.pack("<I", direction))]
        file.write(_block(_PACKET, body + _padded(kept), options))
    return len(frames)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes, options: list[tuple[int, bytes]]) -> bytes:
    tail = b"".join(struct.pack("<HH", code, len(v)) + _padded(v) for code, v in options)
    content = body + tail + struct.pack("<HH", _END, 0)
    length = struct.pack("<I", len(content) + 12)
    return struct.pack("<I", kind) + length + content + length
