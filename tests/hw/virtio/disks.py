"""A disk in memory, and requests for it."""

from __future__ import annotations

import struct

from workbench.block.errors import DiskError

SECTOR = 512


class MemoryDisk:
    """What `VirtioBlk` needs of a disk."""

    def __init__(self, sectors=2048, read_only=False):
        self.data = bytearray(sectors * SECTOR)
        self.read_only = read_only
        self.flushes = 0
        self.discarded = []
        self.bad = set()

    @property
    def sectors(self):
        return len(self.data) // SECTOR

    def read(self, lba, count):
        if self.bad & set(range(lba, lba + count)):
            raise DiskError("bad sector")
        return bytes(self.data[lba * SECTOR : (lba + count) * SECTOR])

    def write(self, lba, data):
        assert len(data) % SECTOR == 0
        assert lba * SECTOR + len(data) <= len(self.data)
        self.data[lba * SECTOR : lba * SECTOR + len(data)] = data

    def flush(self):
        self.flushes += 1

    def discard(self, lba, count):
        assert lba + count <= self.sectors
        self.discarded.append((lba, count))

    def write_zeroes(self, lba, count):
        self.write(lba, bytes(count * SECTOR))


def header(kind, sector=0):
    return struct.pack("<IIQ", kind, 0, sector)
