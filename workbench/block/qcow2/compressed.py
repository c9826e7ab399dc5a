"""Compressed clusters (qcow2.txt, "Compressed Clusters Descriptor"): reading only, as QEMU's tools
make them; what is written over one becomes an ordinary cluster.
"""

from __future__ import annotations

import zlib

import zstandard

WINDOW_BYTES = 8 << 20  # most memory that a zstd frame may ask for


def place(entry: int, cluster_bits: int) -> tuple[int, int]:
    """(offset in the file, bytes) of a compressed cluster's data."""
    x = 62 - (cluster_bits - 8)
    offset = entry & ((1 << x) - 1)
    sectors = (entry >> x & ((1 << (62 - x)) - 1)) + 1
    return offset, sectors * 512 - (offset & 511)


def clusters(entry: int, cluster_bits: int) -> range:
    """Clusters of the file that hold some of it: each counts this reference."""
    offset, length = place(entry, cluster_bits)
    return range(offset >> cluster_bits, (offset + length - 1 >> cluster_bits) + 1)


def decompress(data: bytes, cluster_bytes: int, compression: str) -> bytes | None:
    """A whole cluster, or None if `data` are no such thing; memory: a cluster and the window."""
    try:
        if compression == "zlib":
            result = zlib.decompressobj(-15).decompress(data, cluster_bytes)
        else:
            codec = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
            with codec.stream_reader(data) as reader:
                result = reader.read(cluster_bytes)
    except (zlib.error, zstandard.ZstdError, MemoryError):
        return None
    return result if len(result) == cluster_bytes else None
