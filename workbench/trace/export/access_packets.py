"""Accesses as packets for Perfetto, made by columns: a trace may have fifty million of them.

A packet is put together from fields, each of which is one of a few different ones (places, values,
PCs), or a number that is encoded for all rows at once (the time).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from workbench.trace.columns import (
    Ints,
    Words,
    as_arrow,
    coded,
    encode,
    encode_words,
    integers,
    pieces_of,
    words,
)
from workbench.trace.export.packets import (
    END_OF_EVENT,
    EVENT,
    INSTANT,
    PACKET,
    STAMP,
    Packets,
    head,
)

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS: Final = 1 << 16
_MOST_VARINT: Final = 10
_MOST_NS: Final = float(1 << 62)
_Field = tuple["pa.Array", Ints]
"""A field of each row as bytes, and their lengths."""


def write_accesses(out: Packets, table: pa.Table) -> None:
    """Write the accesses of a table, each on the track of its device."""
    for first in range(0, table.num_rows, _ROWS):
        _write(out, table.slice(first, _ROWS))


def _write(out: Packets, batch: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    fields = [
        _places(out, batch),
        _of_words(words(batch["value"]), lambda value: out.argument("value", value)),
        _of_words(words(batch["pc"]), lambda pc: out.argument("pc", hex(pc))),
        _of_words(words(batch["count"]), lambda count: out.argument("count", count)),
    ]
    ns = np.clip(integers(batch["icount"]) * out.ns_of, -_MOST_NS, _MOST_NS).astype(np.int64)
    stamp, stamp_bytes = varints(ns.view(np.uint64))
    event_bytes = sum((length for _, length in fields), np.zeros(batch.num_rows, np.int64))
    event_head, head_bytes = _heads(EVENT, event_bytes)
    body_bytes = len(STAMP) + stamp_bytes + head_bytes + event_bytes + len(END_OF_EVENT)
    packet_head, packet_head_bytes = _heads(PACKET, body_bytes)
    same, end, none = (pa.scalar(b, pa.large_binary()) for b in (STAMP, END_OF_EVENT, b""))
    parts = [packet_head, same, stamp, event_head, *(field for field, _ in fields), end]
    packets = pc.binary_join_element_wise(*parts, none)
    size = int(body_bytes.sum() + packet_head_bytes.sum())
    out.many(memoryview(packets.buffers()[2])[:size], batch.num_rows)


def _places(out: Packets, batch: pa.Table) -> _Field:
    """What an event begins with: its track, and a name out of offset and direction."""
    kinds, kind_names = coded(batch["kind"])
    devices, device_names = coded(batch["device"])
    offsets, offset_codes = encode_words(words(batch["offset"]))
    pairs, codes = encode(kinds * len(device_names) + devices)
    codes *= len(offsets)
    codes += offset_codes
    codes *= 2
    codes += integers(batch["write"])
    different, codes = encode(codes)
    texts = []
    for place in different.tolist():
        pair, offset = divmod(place >> 1, len(offsets))
        kind, device = divmod(int(pairs[pair]), len(device_names))
        track = out.track(f"{device_names[device] or 'nobody'} ({kind_names[kind]})")
        name = f"{int(offsets[offset]):#x} {'<-' if place & 1 else '->'}"
        texts.append(out.what(INSTANT, track, name))
    return _chosen(texts, codes)


def _of_words(numbers: Words, text: Callable[[int], bytes]) -> _Field:
    different, codes = encode_words(numbers)
    return _chosen([*map(text, different.tolist())], codes)


def _heads(field: int, lengths: Ints) -> _Field:
    different, codes = encode(lengths)
    return _chosen([head(field, length) for length in different.tolist()], codes)


def _chosen(texts: Sequence[bytes], codes: Ints) -> _Field:
    """For each row one of some texts."""
    import pyarrow as pa

    lengths = np.array([*map(len, texts)], np.int64)
    found = pieces_of(b"".join(texts), lengths, pa.large_binary())
    return found.take(as_arrow(codes)), lengths[codes]


def varints(numbers: Words) -> _Field:
    """Encode numbers as `varint` does."""
    import pyarrow as pa

    shifts = np.arange(0, 7 * _MOST_VARINT, 7, dtype=np.uint64)
    left = numbers[:, None] >> shifts
    lengths = np.maximum(np.count_nonzero(left, axis=1), 1)
    digits = (left & np.uint64(0x7F)).astype(np.uint8)
    place = np.arange(_MOST_VARINT)
    digits[place < lengths[:, None] - 1] |= 0x80
    return pieces_of(digits[place < lengths[:, None]], lengths, pa.large_binary()), lengths
