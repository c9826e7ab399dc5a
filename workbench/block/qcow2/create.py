"""New qcow2 images: empty, with the smallest set of tables."""

from __future__ import annotations

import struct
from pathlib import Path

from workbench.block.image import LARGEST_BYTES, SECTOR_BYTES
from workbench.block.qcow2.header import (
    COMPAT_LAZY,
    EXT_BACKING_FORMAT,
    MAGIC,
    MAX_BACKING_NAME,
    MAX_L1_BYTES,
    V2_BYTES,
)
from workbench.errors import InputFileError, UsageError, os_error_text


def create(
    path: str | Path,
    size_bytes: int,
    *,
    version: int = 3,
    cluster_bytes: int = 65536,
    lazy_refcounts: bool = False,
    backing_file: str | None = None,
    backing_format: str | None = None,
) -> None:
    """Make an image file. It must not exist yet."""
    bits = cluster_bytes.bit_length() - 1
    if cluster_bytes != 1 << bits or not 9 <= bits <= 21:
        raise UsageError(f"expected clusters of 512 bytes to 2 MiB, not {cluster_bytes} bytes")
    size = -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES
    l1_entries = max(1, -(-size // (cluster_bytes * (cluster_bytes // 8))))
    if not 0 <= size <= LARGEST_BYTES or l1_entries * 8 > MAX_L1_BYTES:
        raise UsageError(f"expected a smaller disk than {size_bytes} bytes, or larger clusters")
    if version not in (2, 3) or (version == 2 and lazy_refcounts):
        raise UsageError("expected version 3, or version 2 without lazy refcounts")
    l1_clusters = -(-l1_entries * 8 // cluster_bytes)
    per_block = cluster_bytes // 2
    blocks = 1
    while (used := 2 + blocks + l1_clusters) > blocks * per_block:
        blocks += 1
    if blocks * 8 > cluster_bytes:
        raise UsageError(f"expected larger clusters for a disk of {size_bytes} bytes")
    table_at = cluster_bytes
    l1_at = (2 + blocks) * cluster_bytes
    header_bytes = V2_BYTES if version == 2 else 112
    extensions = b""
    if backing_format is not None:
        name = backing_format.encode()
        extensions += struct.pack(">II", EXT_BACKING_FORMAT, len(name)) + name
        extensions += bytes(-len(extensions) % 8)
    extensions += bytes(8)
    backing = b"" if backing_file is None else backing_file.encode()
    backing_at = header_bytes + len(extensions) if backing else 0
    if len(backing) > MAX_BACKING_NAME or backing_at + len(backing) > cluster_bytes:
        raise UsageError("expected a shorter name of the backing file, or larger clusters")
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", MAGIC, version, backing_at, len(backing), bits, size, 0, l1_entries,
        l1_at, table_at, 1, 0, 0,
    )  # fmt: skip
    if version == 3:
        compat = COMPAT_LAZY if lazy_refcounts else 0
        header += struct.pack(">QQQII8x", 0, compat, 0, 4, header_bytes)
    counts = b"\0\1" * used
    table = b"".join(((2 + n) * cluster_bytes).to_bytes(8, "big") for n in range(blocks))
    try:
        with Path(path).open("xb") as out:
            out.write(header + extensions + backing)
            out.seek(table_at)
            out.write(table)
            out.seek(2 * cluster_bytes)
            out.write(counts)
            out.truncate(l1_at + l1_clusters * cluster_bytes)
    except OSError as error:
        raise InputFileError(f"{path} cannot be made: {os_error_text(error)}") from None
