"""Reference counts of a qcow2 image's clusters (qcow2.txt, "Host cluster management").

A count is written at once, before anything in the file refers to the cluster, unless `lazy`: then
blocks are written by `write_dirty` only, and the image carries its dirty bit meanwhile.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import NoReturn

from workbench.block.hostfile import HostFile
from workbench.block.qcow2.header import MAX_REFTABLE_BYTES, REFTABLE_OFFSET, Header
from workbench.block.qcow2.tables import decode_table, encode_table

CACHE_BYTES = 8 << 20
_OFFSET_MASK = 0x00FF_FFFF_FFFF_FFFF & ~0x1FF


class Refcounts:
    """Counts, and the allocation of clusters. `corrupt(reason, offset)` raises."""

    def __init__(
        self,
        file: HostFile,
        header: Header,
        corrupt: Callable[[str, int], NoReturn],
        is_metadata: Callable[[int], bool],
        lazy: bool = False,
    ) -> None:
        self._file = file
        self._header = header
        self._corrupt = corrupt
        self._is_metadata = is_metadata
        self.lazy = lazy
        self._cluster = header.cluster_bytes
        self._order = header.refcount_order
        self.most = (1 << (1 << self._order)) - 1
        self.per_block_bits = header.cluster_bits + 3 - self._order
        self._per_block = 1 << self.per_block_bits
        length = header.reftable_clusters * self._cluster
        raw = file.read_exactly(header.reftable_offset, length, "the refcount table")
        self.table = decode_table(raw)
        self.blocks = {entry >> header.cluster_bits for entry in self.table if entry}
        self._cache: OrderedDict[int, bytearray] = OrderedDict()  # index in the table -> block
        self._dirty: set[int] = set()
        self._hint = 0

    # -- one count

    def get(self, cluster: int) -> int:
        """The count of a cluster of the file."""
        block = self._block(cluster >> self.per_block_bits)
        return 0 if block is None else self._entry(block, cluster & (self._per_block - 1))

    def add(self, cluster: int, delta: int) -> int:
        """Change a count; gives the new one. Below zero or too high is corruption."""
        old = self.get(cluster)
        new = old + delta
        if not 0 <= new <= self.most:
            self._corrupt(
                f"expected a reference count of 0 to {self.most}, not {new}",
                cluster * self._cluster,
            )
        self.put(cluster, new)
        return new

    def put(self, cluster: int, count: int) -> None:
        """Set a count."""
        index, entry = divmod(cluster, self._per_block)
        block = self._block(index)
        if block is None:
            block = self._new_block(cluster)
        at, width = self._place(entry)
        if self._order >= 3:
            block[at : at + width] = count.to_bytes(width, "big")
        else:
            bits = 1 << self._order
            shift = entry * bits & 7
            block[at] = block[at] & ~(self.most << shift) | count << shift
        if count == 0:
            self._hint = min(self._hint, cluster)
        if self.lazy:
            self._dirty.add(index)
        else:
            self._file.write(self._offset_of(index) + at, block[at : at + width])

    def _place(self, entry: int) -> tuple[int, int]:
        """Byte offset and width of an entry in its block."""
        if self._order >= 3:
            width = 1 << (self._order - 3)
            return entry * width, width
        return entry << self._order >> 3, 1

    def _entry(self, block: bytearray, entry: int) -> int:
        at, width = self._place(entry)
        if self._order >= 3:
            return int.from_bytes(block[at : at + width], "big")
        return block[at] >> (entry << self._order & 7) & self.most

    # -- blocks

    def _offset_of(self, index: int) -> int:
        entry = self.table[index] if index < len(self.table) else 0
        if entry & (self._cluster - 1) or entry & ~_OFFSET_MASK:
            self._corrupt(
                "expected a refcount block at a cluster", self._header.reftable_offset + index * 8
            )
        return entry

    def _block(self, index: int) -> bytearray | None:
        """Refcount block `index` of the table; None where there is none."""
        block = self._cache.get(index)
        if block is not None:
            self._cache.move_to_end(index)
            return block
        offset = self._offset_of(index)
        if not offset:
            return None
        if offset >= self._file.size_bytes:
            self._corrupt("expected a refcount block inside the file", offset)
        return self._keep(index, bytearray(self._file.read(offset, self._cluster)))

    def _keep(self, index: int, block: bytearray) -> bytearray:
        self._cache[index] = block
        while len(self._cache) > max(2, CACHE_BYTES // self._cluster):
            old, data = self._cache.popitem(last=False)
            self._write_block(old, data)
        return block

    def _write_block(self, index: int, block: bytearray) -> None:
        if index in self._dirty:
            self._file.write(self._offset_of(index), block)
            self._dirty.discard(index)

    def write_dirty(self) -> None:
        """Write the blocks that `lazy` has kept back."""
        for index in sorted(self._dirty):
            self._write_block(index, self._cache[index])

    def _new_block(self, cluster: int) -> bytearray:
        """Make the block that counts `cluster`: it lies in the first free cluster that it counts
        itself (all are free, unless the image is being repaired).
        """
        index = cluster >> self.per_block_bits
        if index >= len(self.table):
            self._grow(index + 1)
            block = self._block(index)
            if block is not None:
                return block
        place = index << self.per_block_bits
        end = place + self._per_block
        while place == cluster or self._is_metadata(place):
            place += 1
        if place >= end:
            self._corrupt("expected room for a refcount block", cluster * self._cluster)
        block = self._keep(index, bytearray(self._cluster))
        # Its own count and its contents first, then the table that refers to it.
        self.table[index] = place * self._cluster
        self.blocks.add(place)
        lazy, self.lazy = self.lazy, True
        self.put(place, 1)
        self.lazy = lazy
        self._write_block(index, block)
        self._file.sync()
        entry = self.table[index].to_bytes(8, "big")
        self._file.write(self._header.reftable_offset + index * 8, entry)
        return block

    def _grow(self, least: int) -> None:
        """Move the refcount table to a larger place: the first clusters that the old table cannot
        count, with the blocks that count it.
        """
        first = len(self.table) << self.per_block_bits
        per_cluster = self._cluster // 8
        clusters = -(-max(least, len(self.table) * 3 // 2) // per_cluster)
        while True:
            entries = clusters * per_cluster
            blocks = 1
            while (clusters + blocks) > blocks << self.per_block_bits:
                blocks += 1
            if len(self.table) + blocks <= entries:
                break
            clusters += 1
        if clusters * self._cluster > MAX_REFTABLE_BYTES:
            self._corrupt("expected room in the refcount table", self._header.reftable_offset)
        table = array("Q", self.table)
        table.extend([0] * (entries - len(table)))
        used = clusters + blocks
        for cluster in range(first, first + used):
            self._check_free(cluster)
        for n in range(blocks):
            block = bytearray(self._cluster)
            start = n << self.per_block_bits
            for entry in range(min(self._per_block, max(0, used - start))):
                at, width = self._place(entry)
                if self._order >= 3:
                    block[at : at + width] = (1).to_bytes(width, "big")
                else:
                    block[at] |= 1 << (entry << self._order & 7)
            place = (first + clusters + n) * self._cluster
            table[len(self.table) + n] = place
            self.blocks.add(place // self._cluster)
            self._file.write(place, block)
        self._file.write(first * self._cluster, encode_table(table))
        self._file.sync()
        old_at, old_clusters = self._header.reftable_offset, self._header.reftable_clusters
        where = (first * self._cluster).to_bytes(8, "big") + clusters.to_bytes(4, "big")
        self._file.write(REFTABLE_OFFSET, where)
        self._file.sync()
        self.table = table
        self._header.reftable_offset, self._header.reftable_clusters = (
            first * self._cluster,
            clusters,
        )
        for cluster in range(old_clusters):
            self.add(old_at // self._cluster + cluster, -1)

    # -- allocation

    def allocate(self, most: int) -> tuple[int, int]:
        """Take 1 to `most` free clusters in a row, with count 1; gives the first and how many."""
        first = self._next_free(self._hint)
        self._check_free(first)
        self.put(first, 1)
        count = 1
        while count < most and self._is_free(first + count):
            self._check_free(first + count)
            self.put(first + count, 1)
            count += 1
        self._hint = first + count
        return first, count

    def _is_free(self, cluster: int) -> bool:
        index = cluster >> self.per_block_bits
        block = self._block(index) if index < len(self.table) else None
        return block is not None and not self._entry(block, cluster & (self._per_block - 1))

    def _check_free(self, cluster: int) -> None:
        """A cluster that counts as free must not be one that we know to be in use."""
        if cluster == 0 or self._is_metadata(cluster):
            self._corrupt("expected metadata to have a reference count", cluster * self._cluster)

    def _next_free(self, cluster: int) -> int:
        while True:
            index, entry = divmod(cluster, self._per_block)
            block = self._block(index) if index < len(self.table) else None
            if block is None:
                self._new_block(cluster | 1 if entry == 0 else cluster)
                continue
            found = self._find_zero(block, entry)
            if found is not None:
                return index << self.per_block_bits | found
            cluster = (index + 1) << self.per_block_bits

    def _find_zero(self, block: bytearray, entry: int) -> int | None:
        """First entry from `entry` on that is zero."""
        if self._order >= 3:
            width = 1 << (self._order - 3)
            zero, at = bytes(width), entry * width
            while True:
                at = block.find(zero, at)
                if at < 0:
                    return None
                if at % width == 0:
                    return at // width
                at += 1
        for n in range(entry, self._per_block):
            if not self._entry(block, n):
                return n
        return None
