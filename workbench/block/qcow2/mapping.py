"""From guest clusters to L2 entries (qcow2.txt, "Cluster mapping").

Changed L2 and L1 entries stay in memory until `commit`, which writes them in the order that keeps
the file right at every moment: counts and data first, then L2 tables, then L1 entries, and only
then counts go down. Between the steps everything is made stable, so this holds for a power
failure too, not just for the end of the process; what can be left over is a leaked cluster.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import NoReturn

from workbench.block.hostfile import HostFile
from workbench.block.qcow2.header import Header
from workbench.block.qcow2.refcounts import Refcounts
from workbench.block.qcow2.tables import decode_table, encode_table

COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
CACHE_BYTES = 16 << 20
_L1_RESERVED = ~(OFFSET_MASK | COPIED)


class Mapping:
    """The active L1 table and its L2 tables. `corrupt(reason, offset)` raises."""

    def __init__(
        self, file: HostFile, header: Header, corrupt: Callable[[str, int], NoReturn]
    ) -> None:
        self._file = file
        self._header = header
        self._corrupt = corrupt
        self._cluster = header.cluster_bytes
        self.per_table = 1 << header.l2_bits
        raw = file.read_exactly(header.l1_offset, header.l1_entries * 8, "the L1 table")
        self.l1 = decode_table(raw)
        self._tables: OrderedDict[int, array[int]] = OrderedDict()  # L1 index -> table
        self._changed: dict[int, tuple[int, int]] = {}  # L1 index -> first and last new entry
        self._new_l1: set[int] = set()
        self._frees: list[tuple[int, int]] = []  # first cluster, how many: after the commit
        self.refcounts: Refcounts | None = None  # when the image is open for writing
        self.metadata: set[int] = set()  # clusters that no data may lie in; when open for writing

    @property
    def pending(self) -> bool:
        """Does the memory know something that the file does not?"""
        return bool(self._changed or self._new_l1 or self._frees)

    def table(self, index: int) -> array[int] | None:
        """The L2 table of an L1 entry, None where there is none. Not to be changed."""
        table = self._tables.get(index)
        if table is not None:
            self._tables.move_to_end(index)
            return table
        entry = self.l1[index]
        where = self._header.l1_offset + index * 8
        offset = entry & OFFSET_MASK
        if entry & _L1_RESERVED or offset & (self._cluster - 1):
            self._corrupt(f"expected an L2 table at a cluster, not {entry:#x}", where)
        if not offset:
            return None
        if offset >= self._file.size_bytes:
            self._corrupt(f"expected an L2 table inside the file, not at {offset:#x}", where)
        return self._keep(index, decode_table(self._file.read(offset, self._cluster)))

    def set_entry(self, cluster: int, entry: int) -> None:
        """Change the L2 entry of a guest cluster; in the file after `commit`."""
        index, n = divmod(cluster, self.per_table)
        table = self._writable_table(index)
        table[n] = entry
        first, last = self._changed.get(index, (n, n))
        self._changed[index] = (min(first, n), max(last, n))
        if len(self._changed) * self._cluster > CACHE_BYTES // 2:
            self.commit()

    def free_later(self, first: int, count: int) -> None:
        """Take one from the counts of clusters of the file, once nothing in it refers to them."""
        self._frees.append((first, count))

    def commit(self) -> None:
        """Write what has changed."""
        if self._changed or self._new_l1:
            self._file.sync()
            for index, (first, last) in sorted(self._changed.items()):
                offset = self.l1[index] & OFFSET_MASK
                part = self._tables[index][first : last + 1]
                self._file.write(offset + first * 8, encode_table(part))
            if self._new_l1:
                self._file.sync()
                for index in sorted(self._new_l1):
                    entry = self.l1[index].to_bytes(8, "big")
                    self._file.write(self._header.l1_offset + index * 8, entry)
            self._changed.clear()
            self._new_l1.clear()
        if self._frees:
            assert self.refcounts is not None
            self._file.sync()
            frees, self._frees = self._frees, []
            for first, count in frees:
                for cluster in range(first, first + count):
                    self.refcounts.add(cluster, -1)

    def _keep(self, index: int, table: array[int]) -> array[int]:
        self._tables[index] = table
        limit = max(4, CACHE_BYTES // self._cluster)
        if len(self._tables) > limit:
            for old in list(self._tables):
                if len(self._tables) <= limit:
                    break
                if old not in self._changed and old != index:
                    del self._tables[old]
        return table

    def _writable_table(self, index: int) -> array[int]:
        """The L2 table of an L1 entry, made or copied first where it is missing or shared."""
        assert self.refcounts is not None
        table = self.table(index)
        entry = self.l1[index]
        if table is not None and entry & COPIED:
            return table
        place, _ = self.refcounts.allocate(1)
        new = array("Q", table) if table is not None else array("Q", bytes(self._cluster))
        self.metadata.add(place)
        if table is not None:
            old = (entry & OFFSET_MASK) // self._cluster
            self.free_later(old, 1)
        self.l1[index] = place * self._cluster | COPIED
        self._new_l1.add(index)
        self._changed[index] = (0, self.per_table - 1)
        return self._keep(index, new)
