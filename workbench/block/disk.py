"""The disk as a device sees it: sectors, deterministic in recording and replay.

Everything that the run has read or written lies in an overlay: what was read from the image as
extents, as long as one fetch was, and over them 4 KiB blocks that were written. Only the first
touch of a block goes to the image, through `Inputs.fetch`, so it is in the trace; in replay there
is no image and the same extents come from there. A read inside an extent is a view, not a copy.
Writes stay in the overlay, or, with `write_through`, go to the image as well (while recording
only), and `flush` makes them stable.

A read that the image cannot satisfy is recorded as an empty fetch: `read` raises DiskError, then
and in replay, and the device tells the guest. A write that the image refuses ends the run with a
WorkbenchError: the guest's disk and the user's image must not part unnoticed.

Not modelled: a time that the host takes. Devices compute completion times from the request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from workbench.block.errors import DiskError
from workbench.block.image import SECTOR_BYTES, Image
from workbench.core.state import StateError
from workbench.errors import FormatError, WorkbenchError

__all__ = ["SECTOR_BYTES", "Disk", "DiskError"]

BLOCK_BYTES = 4096
_SECTORS = BLOCK_BYTES // SECTOR_BYTES
_ZERO = bytes(BLOCK_BYTES)
FETCH_BLOCKS = 256  # one fetch is at most 1 MiB
MAX_ERRORS = 16
CHUNK_BLOCKS = 1024  # 4 MiB, the unit in which much zeroed space is kept

Fetch = Callable[[str, Callable[[], bytes]], bytes]


class Disk:
    """`name` is the target of its fetches in the trace. `fetch` is `machine.inputs.fetch`.
    `machine.attach(disk)` makes the overlay a part of snapshots and digests.

    `image` is None in replay, and then `size_bytes` comes from the machine's configuration.
    """

    def __init__(
        self,
        name: str,
        image: Image | None,
        fetch: Fetch,
        read_only: bool = False,
        *,
        size_bytes: int | None = None,
        write_through: bool = False,
    ) -> None:
        size = image.size_bytes if size_bytes is None and image is not None else size_bytes
        if size is None:
            raise ValueError(f"{name}: expected an image or a size")
        # wires
        self.target = name
        self.name = f"{name}.disk"  # among the machine's devices
        self.read_only = read_only
        self.size_bytes = size // SECTOR_BYTES * SECTOR_BYTES
        self.sectors = size // SECTOR_BYTES
        self._image = image
        self._fetch = fetch
        self._through = write_through and image is not None and not read_only
        # book-keeping
        self.errors: list[str] = []  # why reads failed, the first few
        self.fetched_bytes = 0
        # state
        self._blocks: dict[int, bytes] = {}  # written
        self._zero_chunks: set[int] = set()
        self._extents: dict[int, bytes] = {}  # read from the image, by the first block
        self._where: dict[int, int] = {}  # block: first block of its extent (follows from those)
        self._sums: dict[int, str] = {}  # of extents, for the digest

    def read(self, lba: int, count: int) -> bytes | memoryview:
        """`count` sectors from `lba`. Raises DiskError outside the disk or if the image fails."""
        self._check(lba, count)
        if not count:
            return b""
        first, last = lba // _SECTORS, (lba + count - 1) // _SECTORS
        view = self._view(first, last)
        if view is None:
            self._touch(first, last)
            view = self._view(first, last)
        if view is None:
            view = memoryview(b"".join(self._block(n) for n in range(first, last + 1)))
        start = (lba - first * _SECTORS) * SECTOR_BYTES
        return view[start : start + count * SECTOR_BYTES]

    def _view(self, first: int, last: int) -> memoryview | None:
        """Blocks that lie in one extent, as read from the image."""
        at = self._where.get(first)
        if at is None or (last != first and self._where.get(last) != at):
            return None
        if self._blocks and not self._blocks.keys().isdisjoint(range(first, last + 1)):
            return None
        return memoryview(self._extents[at])[
            (first - at) * BLOCK_BYTES : (last + 1 - at) * BLOCK_BYTES
        ]

    def _block(self, n: int) -> bytes | memoryview:
        """One block that is in the overlay."""
        block = self._blocks.get(n)
        if block is not None:
            return block
        at = self._where[n]
        return memoryview(self._extents[at])[(n - at) * BLOCK_BYTES : (n + 1 - at) * BLOCK_BYTES]

    def write(self, lba: int, data: bytes | bytearray | memoryview) -> None:
        """Write whole sectors at `lba`. Raises DiskError outside the disk or on a read-only one."""
        data = bytes(data)
        if len(data) % SECTOR_BYTES:
            raise DiskError(f"{self.target}: expected whole sectors, not {len(data)} bytes")
        count = len(data) // SECTOR_BYTES
        self._check_writable(lba, count)
        if not count:
            return
        head, tail = lba % _SECTORS, -(lba + count) % _SECTORS
        first, last = lba // _SECTORS, (lba + count - 1) // _SECTORS
        if head:
            self._touch(first, first)
        if tail and (lba + count) < self.sectors:
            self._touch(last, last)
        if self._through and self._image is not None:
            self._image.write(lba * SECTOR_BYTES, data)
        if head:
            data = bytes(self._block(first)[: head * SECTOR_BYTES]) + data
        if tail:
            old = self._block(last) if last in self._blocks or last in self._where else _ZERO
            data += old[BLOCK_BYTES - tail * SECTOR_BYTES :]
        for n in range(first, last + 1):
            at = (n - first) * BLOCK_BYTES
            self._blocks[n] = data[at : at + BLOCK_BYTES]

    def write_zeroes(self, lba: int, count: int) -> None:
        """Make sectors read as zeroes."""
        self._check_writable(lba, count)
        if not count:
            return
        end = lba + count
        whole_first, whole_last = -(-lba // _SECTORS), end // _SECTORS
        if end == self.sectors:
            whole_last = -(-end // _SECTORS)
        if whole_first >= whole_last:
            self.write(lba, bytes(count * SECTOR_BYTES))
            return
        if lba < whole_first * _SECTORS:
            self.write(lba, bytes((whole_first * _SECTORS - lba) * SECTOR_BYTES))
        if whole_last * _SECTORS < end:
            rest = whole_last * _SECTORS
            self.write(rest, bytes((end - rest) * SECTOR_BYTES))
        if self._through and self._image is not None:
            start, stop = whole_first * BLOCK_BYTES, min(whole_last * BLOCK_BYTES, self.size_bytes)
            self._image.write_zeroes(start, stop - start)
        self._zero_blocks(whole_first, whole_last)

    def discard(self, lba: int, count: int) -> None:
        """The guest needs these sectors no more. They read as zeroes (so that every run agrees)."""
        self.write_zeroes(lba, count)

    def flush(self) -> None:
        """With `write_through`: return when all writes are on stable storage of the host."""
        if self._through and self._image is not None:
            self._image.flush()

    def close(self) -> None:
        """Flush and close the image."""
        if self._image is not None:
            self._image.close()
            self._image = None

    # -- state

    def reset(self) -> None:
        """A reset of the machine changes nothing on its disks."""

    def save(self) -> dict[str, Any]:
        """The overlay. Extents and blocks stay bytes, shared by all that is saved: a checkpoint
        costs what has changed.
        """
        fields = {
            "blocks": dict(self._blocks),
            "extents": dict(self._extents),
            "zero_chunks": sorted(self._zero_chunks),
        }
        return {"kind": "disk", "version": 2, "fields": fields}

    def digest_state(self) -> dict[str, Any]:
        """What stands for `save` in a digest of the machine: sums of what is large."""
        for first, data in self._extents.items():
            if first not in self._sums:
                self._sums[first] = hashlib.sha256(
                    data
                ).hexdigest()  # quickest where it is built in
        blocks = hashlib.blake2b(digest_size=16)
        for n, block in sorted(self._blocks.items()):
            blocks.update(n.to_bytes(8, "little"))
            blocks.update(block)
        extents = [[first, self._sums[first]] for first in sorted(self._extents)]
        return {
            "kind": "disk",
            "blocks": blocks.hexdigest(),
            "extents": extents,
            "zero_chunks": sorted(self._zero_chunks),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `save` gave. Raises StateError for anything else."""
        match state:
            case {
                "kind": "disk",
                "version": 2,
                "fields": {
                    "blocks": dict() as blocks,
                    "extents": dict() as extents,
                    "zero_chunks": list() as chunks,
                },
            }:
                pass
            case _:
                raise StateError(f"{self.target}: expected the state of a disk")
        count = -(-self.sectors // _SECTORS)
        for n, block in blocks.items():
            if type(n) is not int or not 0 <= n < count:
                raise StateError(f"{self.target}: expected a block below {count}, not {n!r:.80}")
            if type(block) is not bytes or len(block) != BLOCK_BYTES:
                raise StateError(f"{self.target}: expected {BLOCK_BYTES} bytes in block {n}")
        for n, data in extents.items():
            whole = type(data) is bytes and data and not len(data) % BLOCK_BYTES
            if type(n) is not int or not whole or not 0 <= n <= count - len(data) // BLOCK_BYTES:
                raise StateError(f"{self.target}: expected an extent of whole blocks at {n!r:.80}")
        if any(type(n) is not int or not 0 <= n * CHUNK_BLOCKS < count for n in chunks):
            raise StateError(f"{self.target}: expected chunks of the disk")
        self._blocks, self._zero_chunks = dict(blocks), set(chunks)
        kept = {n: s for n, s in self._sums.items() if extents.get(n) is self._extents.get(n)}
        self._extents, self._sums, self._where = dict(extents), kept, {}
        for first, data in self._extents.items():
            end = first + len(data) // BLOCK_BYTES
            self._where.update(dict.fromkeys(range(first, end), first))
        self._forget([n for n in self._where if n // CHUNK_BLOCKS in self._zero_chunks])

    # -- inside

    def _check(self, lba: int, count: int) -> None:
        if lba < 0 or count < 0 or lba + count > self.sectors:
            raise DiskError(
                f"{self.target}: expected some of {self.sectors} sectors, not {lba} + {count}"
            )

    def _check_writable(self, lba: int, count: int) -> None:
        self._check(lba, count)
        if self.read_only:
            raise DiskError(f"{self.target} is read-only")

    def _zero_blocks(self, first: int, end: int) -> None:
        blocks = self._blocks
        chunks = range(-(-first // CHUNK_BLOCKS), end // CHUNK_BLOCKS)
        if not chunks:
            blocks.update(dict.fromkeys(range(first, end), _ZERO))
            return
        start, stop = chunks.start * CHUNK_BLOCKS, chunks.stop * CHUNK_BLOCKS
        blocks.update(dict.fromkeys(range(first, start), _ZERO))
        blocks.update(dict.fromkeys(range(stop, end), _ZERO))
        inside = range(start, stop)
        gone = [n for n in blocks if n in inside] if len(blocks) < len(inside) else inside
        for n in gone:
            blocks.pop(n, None)
        self._forget(inside)
        self._zero_chunks.update(chunks)

    def _forget(self, blocks: Iterable[int]) -> None:
        """These blocks are not as they were read, and never will be again."""
        for n in blocks:
            self._where.pop(n, None)

    def _touch(self, first: int, last: int) -> None:
        """Bring blocks `first` to `last` into the overlay: a fetch for each run of missing ones."""
        n = first
        blocks, where = self._blocks, self._where
        while n <= last:
            if n in blocks or n in where:
                n += 1
                continue
            if n // CHUNK_BLOCKS in self._zero_chunks:
                blocks[n] = _ZERO
                n += 1
                continue
            end = n + 1
            while (
                end <= last
                and end not in blocks
                and end not in where
                and end // CHUNK_BLOCKS not in self._zero_chunks
                and end - n < FETCH_BLOCKS
            ):
                end += 1
            self._fetch_blocks(n, end)
            n = end

    def _fetch_blocks(self, first: int, end: int) -> None:
        start, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, self.size_bytes)
        data = self._fetch(self.target, lambda: self._supply(start, stop - start))
        if not data:
            raise DiskError(f"{self.target}: sectors from {start // SECTOR_BYTES} cannot be read")
        if len(data) != stop - start:
            raise FormatError(
                f"expected {stop - start} bytes of {self.target} in the trace, not {len(data)}"
            )
        self.fetched_bytes += len(data)
        if len(data) % BLOCK_BYTES:
            data += bytes(-len(data) % BLOCK_BYTES)
        self._extents[first] = bytes(data)
        self._where.update(dict.fromkeys(range(first, end), first))

    def _supply(self, offset: int, length: int) -> bytes:
        """What the image holds; empty when it cannot be read."""
        if self._image is None:
            raise AssertionError(f"{self.target}: no image, and not in replay")
        try:
            return self._image.read(offset, length)
        except WorkbenchError as error:
            if len(self.errors) < MAX_ERRORS:
                self.errors.append(str(error))
            return b""
