"""A qcow2 disk image, read and written (QEMU docs/interop/qcow2.txt, versions 2 and 3)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NoReturn

from workbench.block.hostfile import HostFile
from workbench.block.image import Image
from workbench.block.qcow2 import compressed, repair, snapshots
from workbench.block.qcow2.header import (
    AUTOCLEAR_OFFSET,
    COMPAT_LAZY,
    FEATURES_OFFSET,
    INCOMPAT_CORRUPT,
    INCOMPAT_DIRTY,
    Header,
)
from workbench.block.qcow2.mapping import COMPRESSED, COPIED, OFFSET_MASK, ZERO, Mapping
from workbench.block.qcow2.refcounts import Refcounts
from workbench.errors import FormatError, InputFileError

_COMPRESSED_CACHE = 4
MAX_RUN = 1024  # clusters allocated at once
_RESERVED = ~(COPIED | COMPRESSED | ZERO | OFFSET_MASK)

# An extent of the disk: what it is, where (host offset, or the entry), bytes.
_UNALLOCATED, _ZEROES, _DATA, _PACKED = range(4)


class Qcow2Image(Image):
    """`backing` is what unallocated clusters show; it is closed with this image."""

    format = "qcow2"

    def __init__(self, file: HostFile, header: Header, backing: Image | None = None) -> None:
        super().__init__(file.name, header.size_bytes, read_only=file.read_only)
        self.header = header
        self._file = file
        self._backing = backing
        self._bits = header.cluster_bits
        self._cluster = header.cluster_bytes
        self._unpacked: OrderedDict[int, bytes] = OrderedDict()
        self._closed = False
        self._touched = False
        self._broken = bool(header.incompat & INCOMPAT_CORRUPT)
        self.snapshots, self._snapshot_bytes = snapshots.parse(file, header)
        if not self.read_only:
            self._open_for_writing()
        self._map = Mapping(file, header, self._corrupt)
        if not self.read_only:
            self._prepare_writing()

    # -- opening and closing

    def _open_for_writing(self) -> None:
        if self._broken:
            raise InputFileError(
                f"{self.name} is marked as corrupt: it can be read, or repaired with "
                "`qemu-img check -r all`, but not written"
            )
        if self.header.incompat & INCOMPAT_DIRTY:
            repair.rebuild_refcounts(self._file, self.header, self.snapshots, self._snapshot_bytes)
            self.header.incompat &= ~INCOMPAT_DIRTY
            self._write_features()

    def _prepare_writing(self) -> None:
        table = self._map
        lazy = bool(self.header.compat & COMPAT_LAZY) and self.header.version >= 3
        counts = Refcounts(self._file, self.header, self._corrupt, self._is_metadata, lazy)
        table.refcounts = self._counts = counts
        meta = table.metadata
        header = self.header
        for offset, length in (
            (0, 1),
            (header.l1_offset, header.l1_entries * 8),
            (header.snapshots_offset, self._snapshot_bytes),
        ):
            meta.update(
                range(offset >> self._bits, offset + length + self._cluster - 1 >> self._bits)
            )
        meta.update((entry & OFFSET_MASK) >> self._bits for entry in table.l1 if entry)

    def _is_metadata(self, cluster: int) -> bool:
        """Is that cluster of the file known to hold no data?"""
        if cluster in self._map.metadata:
            return True
        first = self.header.reftable_offset >> self._bits
        if first <= cluster < first + self.header.reftable_clusters:
            return True
        return cluster in self._counts.blocks

    def _touch(self) -> None:
        """Before the first change: marks in the header."""
        if self._broken:
            raise InputFileError(f"{self.name} is corrupt and cannot be written")
        if self._touched:
            return
        self._touched = True
        if self.header.version >= 3:
            if self.header.autoclear:
                # Nothing that these bits promise (bitmaps) is kept up by us.
                self.header.autoclear = 0
                self._file.write(AUTOCLEAR_OFFSET, bytes(8))
            if self._counts.lazy:
                self.header.incompat |= INCOMPAT_DIRTY
                self._write_features()
            self._file.sync()

    def _write_features(self) -> None:
        self._file.write(FEATURES_OFFSET, self.header.incompat.to_bytes(8, "big"))
        self._file.sync()

    def _corrupt(self, reason: str, offset: int) -> NoReturn:
        """The image contradicts itself: mark it, so that nobody writes it again, and give up."""
        if not self._broken and not self.read_only and self.header.version >= 3:
            self.header.incompat |= INCOMPAT_CORRUPT
            self._write_features()
        self._broken = True
        raise FormatError(reason, path=self.name, offset=offset)

    def flush(self) -> None:
        """To stable storage, tables included."""
        if not self.read_only and not self._broken:
            self._map.commit()
        self._file.sync()

    def close(self) -> None:
        """Flush, write what `lazy` has kept back, close."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self.read_only and not self._broken:
                self.flush()
                if self._touched and self._counts.lazy:
                    self._counts.write_dirty()
                    self._file.sync()
                    self.header.incompat &= ~INCOMPAT_DIRTY
                    self._write_features()
                self._file.sync()
        finally:
            self._file.close()
            if self._backing is not None:
                self._backing.close()

    def info(self) -> dict[str, object]:
        """Plain values."""
        header = self.header
        return {
            **super().info(),
            "version": header.version,
            "cluster_bytes": header.cluster_bytes,
            "refcount_bits": 1 << header.refcount_order,
            "compression": header.compression,
            "lazy_refcounts": bool(header.compat & COMPAT_LAZY),
            "dirty": bool(header.incompat & INCOMPAT_DIRTY),
            "corrupt": self._broken,
            "backing_file": header.backing_file,
            "snapshots": [{"id": s.number, "name": s.name, "created_s": s.created_s,
                           "vm_state_bytes": s.vm_state_bytes} for s in self.snapshots],
        }  # fmt: skip

    # -- reading

    def _read(self, offset: int, length: int) -> bytes:
        parts = [self._read_extent(*e) for e in self._extents(offset, length)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _extents(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """(kind, offset in the disk, place, bytes) for what lies there, joined where it goes on."""
        kind, start, place, run = -1, 0, 0, 0
        end = offset + length
        while offset < end:
            inside = offset & (self._cluster - 1)
            count = min(self._cluster - inside, end - offset)
            new_kind, new_place = self._lookup(offset >> self._bits)
            if new_kind != kind or kind == _PACKED or (kind == _DATA and new_place != place + run):
                if run:
                    yield kind, start, place, run
                kind, start, run = new_kind, offset, 0
                place = new_place + (inside if kind == _DATA else 0)
            run += count
            offset += count
        if run:
            yield kind, start, place, run

    def _entry(self, cluster: int) -> int:
        """The L2 entry of a guest cluster; 0 without a table."""
        index, n = divmod(cluster, self._map.per_table)
        table = self._map.table(index)
        return 0 if table is None else table[n]

    def _lookup(self, cluster: int) -> tuple[int, int]:
        entry = self._entry(cluster)
        if not entry:
            return _UNALLOCATED, 0
        if entry & COMPRESSED:
            return _PACKED, entry
        place = self._checked_place(entry, cluster)
        if entry & ZERO and self.header.version >= 3:
            return _ZEROES, 0
        return (_DATA, place) if place else (_UNALLOCATED, 0)

    def _checked_place(self, entry: int, cluster: int) -> int:
        """Offset in the file that a standard entry names; 0 for none."""
        place = entry & OFFSET_MASK
        zero_ok = self.header.version >= 3
        if entry & _RESERVED or place & (self._cluster - 1) or (entry & ZERO and not zero_ok):
            self._corrupt(
                f"expected a cluster of the file in an L2 entry, not {entry:#x}",
                cluster << self._bits,
            )
        return place

    def _read_extent(self, kind: int, offset: int, place: int, count: int) -> bytes:
        if kind == _DATA:
            return self._file.read(place, count)
        if kind == _PACKED:
            inside = offset & (self._cluster - 1)
            return self._unpack(place)[inside : inside + count]
        if kind == _UNALLOCATED and self._backing is not None:
            there = max(0, min(count, self._backing.size_bytes - offset))
            return (
                self._backing.read(offset, there) + bytes(count - there) if there else bytes(count)
            )
        return bytes(count)

    def _unpack(self, entry: int) -> bytes:
        """The cluster of a compressed entry."""
        data = self._unpacked.get(entry)
        if data is None:
            offset, length = compressed.place(entry, self._bits)
            if offset >= self._file.size_bytes:
                self._corrupt("expected a compressed cluster inside the file", offset)
            packed = self._file.read(offset, length)
            found = compressed.decompress(packed, self._cluster, self.header.compression)
            if found is None:
                raise FormatError(
                    f"expected a {self.header.compression} cluster", path=self.name, offset=offset
                )
            data = self._unpacked[entry] = found
            if len(self._unpacked) > _COMPRESSED_CACHE:
                self._unpacked.popitem(last=False)
        return data

    # -- writing

    def _write(self, offset: int, data: bytes) -> None:
        self._touch()
        view, at, end = memoryview(data), 0, len(data)
        while at < end:
            place, count = self._in_place(offset + at, end - at)
            if count:
                self._file.write(place, view[at : at + count])
            else:
                count = self._write_new(offset + at, view[at:])
            at += count

    def _in_place(self, offset: int, length: int) -> tuple[int, int]:
        """Where bytes of the disk can be written in place, and how many; (0, 0) if they cannot."""
        start = run = 0
        while run < length:
            inside = offset + run & (self._cluster - 1)
            cluster = offset + run >> self._bits
            entry = self._entry(cluster)
            if not entry & COPIED or entry & COMPRESSED:
                break
            place = self._checked_place(entry, cluster)
            if entry & ZERO or not place or (run and place + inside != start + run):
                break
            self._check_data_place(place)
            if not run:
                start = place + inside
            run += min(self._cluster - inside, length - run)
        return start, run

    def _check_data_place(self, place: int) -> None:
        if self._is_metadata(place >> self._bits):
            self._corrupt("expected data in a cluster, not metadata of the image", place)

    def _write_new(self, offset: int, data: memoryview) -> int:
        """Write from `offset` on into fresh clusters, as many as lie in a row; gives the bytes."""
        first = offset >> self._bits
        wanted = min((offset + len(data) - 1 >> self._bits) - first + 1, MAX_RUN)
        old: list[int] = []
        for cluster in range(first, first + wanted):
            entry = self._entry(cluster)
            in_place = entry & COPIED and not entry & (COMPRESSED | ZERO) and entry & OFFSET_MASK
            if in_place and old:
                break
            old.append(entry)
            if entry & ZERO and entry & COPIED and not entry & COMPRESSED and entry & OFFSET_MASK:
                break  # its own cluster is there already
        reuse = len(old) == 1 and not old[0] & COMPRESSED and old[0] & ZERO and old[0] & COPIED
        if reuse and self._checked_place(old[0], first):
            place, count = self._checked_place(old[0], first) >> self._bits, 1
            self._check_data_place(place << self._bits)
        else:
            reuse = 0
            if len(old) > 1 and old[-1] & ZERO and old[-1] & COPIED:
                old.pop()
            place, count = self._counts.allocate(len(old))
        start, stop = first << self._bits, (first + count) << self._bits
        end = min(offset + len(data), stop)
        head = self._old(start, offset - start)
        tail = self._old(end, stop - end)
        self._file.write(place << self._bits, b"".join((head, data[: end - offset], tail)))
        for n in range(count):
            self._map.set_entry(first + n, (place + n) << self._bits | COPIED)
            if not reuse:
                self._release(old[n], first + n)
        return end - offset

    def _old(self, offset: int, length: int) -> bytes:
        """What is there now; zeroes behind the end of the disk."""
        there = max(0, min(length, self.size_bytes - offset))
        return (self._read(offset, there) if there else b"") + bytes(length - there)

    def _release(self, entry: int, cluster: int) -> None:
        """Nothing refers to what this entry named any more, once the change is committed."""
        if entry & COMPRESSED:
            self._unpacked.pop(entry, None)
            packed = compressed.clusters(entry, self._bits)
            self._map.free_later(packed.start, len(packed))
        elif entry & OFFSET_MASK:
            place = self._checked_place(entry, cluster) >> self._bits
            self._check_data_place(place << self._bits)
            self._map.free_later(place, 1)

    def _write_zeroes(self, offset: int, length: int) -> None:
        self._touch()
        end = offset + length
        while offset < end:
            inside = offset & (self._cluster - 1)
            count = min(self._cluster - inside, end - offset)
            whole = count == self._cluster or (not inside and offset + count == self.size_bytes)
            done = self._is_zero(offset) or (whole and self._zero_cluster(offset >> self._bits))
            if not done:
                self._write(offset, bytes(count))
            offset += count

    def _is_zero(self, offset: int) -> bool:
        """Does that cluster read as zeroes already, by what the tables say?"""
        kind, _ = self._lookup(offset >> self._bits)
        if kind == _UNALLOCATED:
            return (
                self._backing is None
                or offset >> self._bits << self._bits >= self._backing.size_bytes
            )
        return kind == _ZEROES

    def _zero_cluster(self, cluster: int) -> bool:
        """Drop a cluster so that it reads as zeroes; False if this version has no way to say so."""
        if self.header.version >= 3:
            entry = ZERO
        elif self._backing is None:
            entry = 0
        else:
            return False
        old = self._entry(cluster)
        self._map.set_entry(cluster, entry)
        self._release(old, cluster)
        return True
