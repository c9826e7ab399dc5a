"""Reference counts made anew, for an image whose dirty bit says that they were kept lazily."""

from __future__ import annotations

from array import array
from typing import NoReturn

from workbench.block.hostfile import HostFile
from workbench.block.qcow2 import compressed
from workbench.block.qcow2.header import MAX_L1_BYTES, Header
from workbench.block.qcow2.mapping import COMPRESSED, COPIED, OFFSET_MASK
from workbench.block.qcow2.refcounts import Refcounts
from workbench.block.qcow2.snapshots import Snapshot
from workbench.block.qcow2.tables import decode_table, encode_table
from workbench.errors import FormatError

MAX_CLUSTERS = 1 << 25
MAX_ENTRIES = 1 << 26  # of all tables together: what is larger takes too long here


def rebuild_refcounts(
    file: HostFile, header: Header, snapshots: list[Snapshot], snapshot_bytes: int
) -> None:
    """Count every reference in the image and make the stored counts and COPIED flags agree."""
    _Rebuild(file, header).run(snapshots, snapshot_bytes)


class _Rebuild:
    def __init__(self, file: HostFile, header: Header) -> None:
        self._file = file
        self._header = header
        self._bits = header.cluster_bits
        self._clusters = (file.size_bytes >> self._bits) + 1
        if header.has_bitmaps or self._clusters > MAX_CLUSTERS:
            raise FormatError(
                "was not closed properly; repair it with `qemu-img check -r all`", path=file.name
            )
        self._seen = array("I", bytes(4 * self._clusters))
        self._entries = 0

    def run(self, snapshots: list[Snapshot], snapshot_bytes: int) -> None:
        """Count, then write."""
        header = self._header
        self._count(0, 1)
        self._count(header.snapshots_offset, snapshot_bytes)
        self._count(header.reftable_offset, header.reftable_clusters << self._bits)
        self._tables(header.l1_offset, header.l1_entries)
        for s in snapshots:
            if s.l1_entries * 8 > MAX_L1_BYTES:
                self._bad("expected a smaller L1 table of a snapshot", s.l1_offset)
            self._tables(s.l1_offset, s.l1_entries)
        counts = Refcounts(self._file, header, self._bad, self._is_used)
        for entry in counts.table:
            if entry:
                self._count(entry, 1 << self._bits)
        self._write(counts)
        self._flags(counts)
        self._file.sync()

    def _bad(self, reason: str, offset: int) -> NoReturn:
        raise FormatError(
            f"was not closed properly and cannot be repaired here: {reason}",
            path=self._file.name, offset=offset,
        )  # fmt: skip

    def _is_used(self, cluster: int) -> bool:
        return cluster < self._clusters and self._seen[cluster] != 0

    def _count(self, offset: int, length: int) -> None:
        """One reference to each cluster of this part of the file."""
        if not length:
            return
        first, last = offset >> self._bits, offset + length - 1 >> self._bits
        if last >= self._clusters:
            self._bad("expected references to clusters of the file", offset)
        for cluster in range(first, last + 1):
            self._seen[cluster] += 1

    def _tables(self, l1_offset: int, entries: int) -> None:
        self._count(l1_offset, entries * 8)
        raw = self._file.read_exactly(l1_offset, entries * 8, "an L1 table")
        self._entries += entries
        for l1_entry in decode_table(raw):
            offset = l1_entry & OFFSET_MASK
            if not offset:
                continue
            self._count(offset, 1 << self._bits)
            self._entries += 1 << self._header.l2_bits
            if self._entries > MAX_ENTRIES:
                self._bad("the image is too large", l1_offset)
            for entry in decode_table(self._file.read(offset, 1 << self._bits)):
                if entry & COMPRESSED:
                    at, length = compressed.place(entry, self._bits)
                    self._count(at, length)
                elif entry & OFFSET_MASK:
                    self._count(entry & OFFSET_MASK, 1 << self._bits)

    def _write(self, counts: Refcounts) -> None:
        """Every stored count becomes what was counted."""
        for cluster, seen in enumerate(self._seen):
            if seen > counts.most:
                self._bad("expected fewer references to a cluster", cluster << self._bits)
            if seen and counts.get(cluster) < seen:
                blocks = set(counts.blocks)
                counts.put(cluster, seen)
                for place in counts.blocks - blocks:  # a block that was missing
                    if place < self._clusters:
                        self._seen[place] += 1
        for cluster, seen in enumerate(self._seen):
            if counts.get(cluster) > seen:
                counts.put(cluster, seen)

    def _flags(self, counts: Refcounts) -> None:
        """COPIED in the active tables: exactly where the count is one."""
        header = self._header
        raw = self._file.read_exactly(header.l1_offset, header.l1_entries * 8, "the L1 table")
        l1 = decode_table(raw)
        for index, l1_entry in enumerate(l1):
            offset = l1_entry & OFFSET_MASK
            if not offset:
                continue
            old = self._file.read(offset, 1 << self._bits)
            table = decode_table(old)
            for n, entry in enumerate(table):
                if entry & OFFSET_MASK and not entry & COMPRESSED:
                    table[n] = self._flagged(entry, counts)
            new = encode_table(table)
            if new != old:
                self._file.write(offset, new)
            l1[index] = self._flagged(l1_entry, counts)
        if encode_table(l1) != raw:
            self._file.write(header.l1_offset, encode_table(l1))

    def _flagged(self, entry: int, counts: Refcounts) -> int:
        single = counts.get((entry & OFFSET_MASK) >> self._bits) == 1
        return entry | COPIED if single else entry & ~COPIED
