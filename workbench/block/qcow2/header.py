"""The header of a qcow2 image, versions 2 and 3 (QEMU docs/interop/qcow2.txt, "Header").

Everything in it is untrusted: every field is checked against a bound before anything is allocated.
Not modelled, refused by name: encryption, external data files, extended L2 entries.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from workbench.block.hostfile import HostFile
from workbench.block.image import LARGEST_BYTES, SECTOR_BYTES
from workbench.errors import FormatError

MAGIC = b"QFI\xfb"
V2_BYTES, V3_BYTES, NOW_BYTES = 72, 104, 112
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
FEATURES_OFFSET, AUTOCLEAR_OFFSET, REFTABLE_OFFSET = 72, 88, 48

INCOMPAT_DIRTY, INCOMPAT_CORRUPT, INCOMPAT_DATA_FILE = 1, 2, 4
INCOMPAT_COMPRESSION, INCOMPAT_EXTENDED_L2 = 8, 16
_KNOWN_INCOMPAT = INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_COMPRESSION
_REFUSED = {INCOMPAT_DATA_FILE: "external data file", INCOMPAT_EXTENDED_L2: "extended L2 entries"}
COMPAT_LAZY = 1
COMPRESSIONS = ("zlib", "zstd")

EXT_END, EXT_BACKING_FORMAT, EXT_FEATURES = 0, 0xE2792ACA, 0x6803F857
EXT_BITMAPS = 0x23852875

MAX_L1_BYTES = 32 << 20
MAX_REFTABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_EXTENSIONS = 64
MAX_BACKING_NAME = 1023


@dataclass(slots=True)
class Header:
    """What the header says, checked. Offsets are bytes in the file."""

    version: int
    cluster_bits: int
    size_bytes: int
    l1_entries: int
    l1_offset: int
    reftable_offset: int
    reftable_clusters: int
    snapshots: int
    snapshots_offset: int
    incompat: int
    compat: int
    autoclear: int
    refcount_order: int
    compression: str
    backing_file: str | None
    backing_format: str | None
    has_bitmaps: bool

    @property
    def cluster_bytes(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_bits(self) -> int:
        """log2 of the entries of an L2 table."""
        return self.cluster_bits - 3


def parse(file: HostFile) -> Header:
    """Read and check the header. Raises FormatError."""
    raw = file.read(0, NOW_BYTES)

    def bad(what: str, offset: int) -> FormatError:
        return FormatError(what, path=file.name, offset=offset)

    if file.size_bytes < V2_BYTES or raw[:4] != MAGIC:
        raise bad("expected a qcow2 image", 0)
    (_, version, backing_at, backing_len, bits, size, crypt, l1_entries, l1_at, table_at, table_n,
     snapshots, snapshots_at) = _V2.unpack_from(raw)  # fmt: skip
    if version not in (2, 3):
        raise bad(f"expected version 2 or 3 of qcow2, not {version}", 4)
    if not 9 <= bits <= 21:
        raise bad(f"expected clusters of 2^9 to 2^21 bytes, not 2^{bits}", 20)
    incompat = compat = autoclear = 0
    order, length, compression = 4, V2_BYTES, 0
    if version == 3:
        incompat, compat, autoclear, order, length = _V3.unpack_from(raw, V2_BYTES)
        if file.size_bytes < V3_BYTES or not V3_BYTES <= length <= 1 << bits or length % 8:
            raise bad(f"expected a header of 104 bytes up to a cluster, not {length}", 100)
        compression = raw[V3_BYTES] if length > V3_BYTES else 0
    cluster = 1 << bits
    names: dict[tuple[int, int], str] = {}
    backing_format, bitmaps = None, False
    for kind, at, data in _extensions(file, length, cluster, backing_at):
        if kind == EXT_BACKING_FORMAT:
            backing_format = _text(data, "the backing format", file, at)
        elif kind == EXT_FEATURES:
            for i in range(0, len(data) - 47, 48):
                text = data[i + 2 : i + 48].rstrip(b"\0").decode("ascii", "replace")
                names[data[i], data[i + 1]] = "".join(c if c.isprintable() else "?" for c in text)
        elif kind == EXT_BITMAPS:
            bitmaps = True
    if crypt:
        raise bad("encrypted qcow2 images are not supported", 32)
    _refuse_features(incompat, names, file)
    if order > 6:
        raise bad(f"expected a refcount order of 0 to 6, not {order}", 96)
    if compression >= len(COMPRESSIONS):
        raise bad(f"expected compression type 0 (zlib) or 1 (zstd), not {compression}", 104)
    if (compression != 0) != bool(incompat & INCOMPAT_COMPRESSION):
        raise bad("compression type and its feature bit contradict each other", 104)
    if size > LARGEST_BYTES:
        raise bad(f"expected a disk of at most 2^62 bytes, not {size}", 24)
    needed = -(-size // (cluster * (cluster // 8)))
    if l1_entries * 8 > MAX_L1_BYTES or l1_entries < needed:
        raise bad(f"expected {needed} to {MAX_L1_BYTES // 8} L1 entries, not {l1_entries}", 36)
    if not 1 <= table_n * cluster <= MAX_REFTABLE_BYTES:
        raise bad(f"expected a refcount table of at most 8 MiB, not {table_n} clusters", 56)
    if snapshots > MAX_SNAPSHOTS:
        raise bad(f"expected at most {MAX_SNAPSHOTS} snapshots, not {snapshots}", 60)
    places = [(l1_at, l1_entries * 8, "the L1 table", 40),
              (table_at, table_n * cluster, "the refcount table", 48),
              (snapshots_at, snapshots * 40, "the snapshot table", 64)]  # fmt: skip
    for at, extent, what, field in places:
        if extent and (at % cluster or not cluster <= at <= file.size_bytes):
            raise bad(f"expected {what} at a cluster of the file, not at {at}", field)
    backing = None
    if backing_at:
        if not 1 <= backing_len <= MAX_BACKING_NAME or backing_at + backing_len > cluster:
            raise bad("expected the backing file's name in the first cluster", 8)
        name = file.read_exactly(backing_at, backing_len, "the backing file's name")
        backing = _text(name, "the backing file's name", file, backing_at)
    return Header(
        version, bits, size // SECTOR_BYTES * SECTOR_BYTES, l1_entries, l1_at, table_at, table_n,
        snapshots, snapshots_at, incompat, compat, autoclear, order, COMPRESSIONS[compression],
        backing, backing_format, bitmaps,
    )  # fmt: skip


def _extensions(
    file: HostFile, start: int, cluster: int, backing_at: int
) -> list[tuple[int, int, bytes]]:
    """(type, offset, data) of the header extensions."""
    end = backing_at if start <= backing_at <= cluster else cluster
    end = min(end, file.size_bytes)
    raw = file.read(0, end)
    found: list[tuple[int, int, bytes]] = []
    at = start
    while at + 8 <= end:
        kind, length = struct.unpack_from(">II", raw, at)
        if kind == EXT_END:
            break
        if at + 8 + length > end or len(found) >= MAX_EXTENSIONS:
            raise FormatError("expected header extensions in the header", path=file.name, offset=at)
        found.append((kind, at + 8, raw[at + 8 : at + 8 + length]))
        at += 8 + (length + 7) // 8 * 8
    return found


def _refuse_features(incompat: int, names: dict[tuple[int, int], str], file: HostFile) -> None:
    unknown = incompat & ~_KNOWN_INCOMPAT
    if unknown:
        bits = [b for b in range(64) if unknown >> b & 1]
        shown = ", ".join(_REFUSED.get(1 << b) or names.get((0, b)) or f"bit {b}" for b in bits)
        raise FormatError(
            f"needs features of qcow2 that are not supported: {shown}", path=file.name, offset=72
        )


def _text(raw: bytes, what: str, file: HostFile, offset: int) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise FormatError(f"expected {what} as text", path=file.name, offset=offset)
    return text
