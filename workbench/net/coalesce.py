"""Puts TCP segments together that came at once, as the kernel's GRO does for a real interface.

For guests whose driver takes large frames: one frame of 64 KiB costs them, and us, far less than 45
small ones. Only segments of IPv4 that follow each other in one stream, with the same headers and
nothing set but ACK (and PSH, which ends the row), are put together; checksums are made anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from workbench.core.checksum import internet_sum

__all__ = ["MOST_IP_BYTES", "coalesce"]

ETH = 14
MOST_IP_BYTES = 65535
ACK, PSH = 0x10, 0x08


def coalesce(frames: Iterable[bytes]) -> list[bytes]:
    """The same streams in fewer frames, order kept."""
    out: list[bytes] = []
    row: list[bytes] = []
    key: tuple[bytes, ...] | None = None
    next_seq = total = head = size = whole = 0
    begins = before = after = window = options = b""
    for frame in frames:
        # Nearly all that comes: another one of full size. The rest is looked at by its fields.
        if (
            key is not None
            and len(frame) == whole
            and frame[26:47] == before + next_seq.to_bytes(4, "big") + after
            and frame[:18] == begins
            and frame[20:24] == key[2]
            and frame[48:50] == window
            and frame[54:head] == options
            and frame[47] & ~PSH == ACK
            and total + size <= MOST_IP_BYTES
        ):
            row.append(frame)
            next_seq = next_seq + size & 0xFFFFFFFF
            total += size
            if frame[47] & PSH:
                _flush(out, row, head)
                key = None
            continue
        found = _segment(frame)
        if found is None:
            _flush(out, row, head)
            key = None
            out.append(frame)
            continue
        same, seq, start, ends = found
        length = len(frame) - start
        fits = same == key and seq == next_seq and length <= size
        if not fits or total + length > MOST_IP_BYTES:
            _flush(out, row, head)
            key, head, size, total, whole = same, start, length, start - ETH, len(frame)
            begins, before, after = frame[:18], frame[26:38], frame[42:47]
            window, options = frame[48:50], frame[54:start]
        row.append(frame)
        next_seq = seq + length & 0xFFFFFFFF
        total += length
        if ends or length < size:
            _flush(out, row, head)
            key = None
    _flush(out, row, head)
    return out


def _segment(frame: bytes) -> tuple[tuple[bytes, ...], int, int, bool] | None:
    """(what all segments of a row share, sequence number, where the data start, is it the last)."""
    if frame[12:14] != b"\x08\x00" or len(frame) < ETH + 40 or frame[14] != 0x45:
        return None
    if frame[23] != 6 or frame[20] & 0x3F or frame[21]:  # TCP, no fragment
        return None
    start = ETH + 20 + (frame[46] >> 4) * 4
    flags = frame[47]
    whole = int.from_bytes(frame[16:18], "big") + ETH == len(frame)
    if not whole or not ETH + 40 <= start < len(frame) or flags & ~PSH != ACK:
        return None
    same = (frame[:12], frame[15:16], frame[20:24], frame[26:38], frame[42:47], frame[48:50],
            frame[54:start])  # fmt: skip
    return same, int.from_bytes(frame[38:42], "big"), start, bool(flags & PSH)


def _flush(out: list[bytes], row: list[bytes], head: int) -> None:
    if len(row) < 2:
        out += row
    else:
        out.append(_join(row, head))
    row.clear()


def _join(row: list[bytes], head: int) -> bytes:
    header = bytearray(row[0][:head])
    data = b"".join(frame[head:] for frame in row)
    header[47] = row[-1][47]
    header[16:18] = (head - ETH + len(data)).to_bytes(2, "big")
    header[24:26] = b"\0\0"
    header[24:26] = (internet_sum(header[14:34]) ^ 0xFFFF).to_bytes(2, "big")
    header[50:52] = b"\0\0"
    length = head - 34 + len(data)
    pseudo = bytes(header[26:34]) + b"\0\x06" + length.to_bytes(2, "big")
    total = internet_sum(pseudo) + internet_sum(header[34:]) + internet_sum(data)
    header[50:52] = (total % 0xFFFF ^ 0xFFFF).to_bytes(2, "big")
    return b"".join((header, data))
