"""Block device (Virtual I/O Device 1.2, 5.2) on a `block.Disk`.

A request is executed when the driver makes it available; its buffer is returned, and the interrupt
comes, when the request is done in guest time: 20 us after its bytes have gone over a path of 1 ns a
byte that all queues share; FLUSH takes 100 us. So the order of completion is that of the requests.
At most 64 MiB are under way at once. Deliberately not modelled: SECURE_ERASE, lifetime, zoned
devices, SCSI commands of legacy devices.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from workbench.block.errors import DiskError
from workbench.core.clock import Clock
from workbench.core.regs import RO, Reg, on_read, on_write
from workbench.core.requests import OK, RESET
from workbench.hw.virtio import spec
from workbench.hw.virtio.device import VirtioDevice, VirtioState, regmap
from workbench.hw.virtio.queue import MOST_CHAIN_BYTES, Chain, VirtqueueError

__all__ = ["BlkDisk", "BlkState", "Completion", "VirtioBlk"]

SECTOR: Final = 512
QUEUE_SIZE: Final = 256
MOST_QUEUES: Final = 16
LATENCY_PS: Final = 20_000_000
PS_PER_BYTE: Final = 1000
FLUSH_PS: Final = 100_000_000
SEG_MAX: Final = 254
SIZE_MAX: Final = 256 << 10
MOST_RANGE_SECTORS: Final = 1 << 18
MOST_RANGES: Final = 4
ID_BYTES: Final = 20

F_SIZE_MAX, F_SEG_MAX, F_GEOMETRY, F_RO, F_BLK_SIZE = 1 << 1, 1 << 2, 1 << 4, 1 << 5, 1 << 6
F_FLUSH, F_TOPOLOGY, F_CONFIG_WCE, F_MQ = 1 << 9, 1 << 10, 1 << 11, 1 << 12
F_DISCARD, F_WRITE_ZEROES = 1 << 13, 1 << 14

T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES = 0, 1, 4, 8, 11, 13
S_OK, S_IOERR, S_UNSUPP = 0, 1, 2
KINDS: Final = {
    T_IN: "VIRTIO_BLK_T_IN",
    T_OUT: "VIRTIO_BLK_T_OUT",
    T_FLUSH: "VIRTIO_BLK_T_FLUSH",
    T_GET_ID: "VIRTIO_BLK_T_GET_ID",
    T_DISCARD: "VIRTIO_BLK_T_DISCARD",
    T_WRITE_ZEROES: "VIRTIO_BLK_T_WRITE_ZEROES",
}
STATUSES: Final = {S_OK: OK, S_IOERR: "VIRTIO_BLK_S_IOERR", S_UNSUPP: "VIRTIO_BLK_S_UNSUPP"}
RANGE_F_UNMAP: Final = 1

REF = "VIRTIO 1.2 5.2.4"
CAPACITY = Reg("capacity", 0, 8, access=RO, ref=REF)
CYLINDERS = Reg("geometry_cylinders", 16, 2, access=RO, ref=REF)
WRITEBACK = Reg("writeback", 32, 1, ref="VIRTIO 1.2 5.2.6.2")
NUM_QUEUES = Reg("num_queues", 34, 2, access=RO, ref=REF)

CONFIG = regmap(
    "virtio-blk",
    (
        CAPACITY,
        Reg("size_max", 8, 4, SIZE_MAX, RO, ref=REF),
        Reg("seg_max", 12, 4, SEG_MAX, RO, ref=REF),
        CYLINDERS,
        Reg("geometry_heads", 18, 1, 16, RO, ref=REF),
        Reg("geometry_sectors", 19, 1, 63, RO, ref=REF),
        Reg("blk_size", 20, 4, SECTOR, RO, ref=REF),
        Reg("physical_block_exp", 24, 1, 3, RO, ref=REF),
        Reg("alignment_offset", 25, 1, 0, RO, ref=REF),
        Reg("min_io_size", 26, 2, 8, RO, ref=REF),
        Reg("opt_io_size", 28, 4, 0, RO, ref=REF),
        WRITEBACK,
        NUM_QUEUES,
        Reg("max_discard_sectors", 36, 4, MOST_RANGE_SECTORS, RO, ref=REF),
        Reg("max_discard_seg", 40, 4, MOST_RANGES, RO, ref=REF),
        Reg("discard_sector_alignment", 44, 4, 8, RO, ref=REF),
        Reg("max_write_zeroes_sectors", 48, 4, MOST_RANGE_SECTORS, RO, ref=REF),
        Reg("max_write_zeroes_seg", 52, 4, MOST_RANGES, RO, ref=REF),
        Reg("write_zeroes_may_unmap", 56, 1, 1, RO, ref=REF),
    ),
    REF,
    length=60,
)


class BlkDisk(Protocol):
    """What the device needs of a `block.Disk`; sectors of 512 bytes, DiskError for a bad medium."""

    @property
    def sectors(self) -> int:
        """Size."""

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""

    def read(self, lba: int, count: int, /) -> bytes | memoryview:
        """Sectors."""

    def write(self, lba: int, data: bytes, /) -> None:
        """Whole sectors."""

    def flush(self) -> None:
        """To stable storage."""

    def discard(self, lba: int, count: int, /) -> None:
        """The content is of no interest any more."""

    def write_zeroes(self, lba: int, count: int, /) -> None:
        """Zeroes."""


@dataclass(slots=True)
class Completion:
    """A request that is executed but not reported yet."""

    queue: int
    id: int
    slots: int
    written_bytes: int
    size_bytes: int
    at_ps: int
    request: int = 0
    status: int = 0

    def __post_init__(self) -> None:
        least = min(self.queue, self.id, self.slots, self.written_bytes, self.size_bytes)
        if min(least, self.request, self.status) < 0:
            raise ValueError(f"expected no negative number, not {self!r}")
        if max(self.id, self.slots) > 0xFFFF or self.written_bytes >= 1 << 32:
            raise ValueError(f"expected 16 bits of id and slots, 32 of bytes, not {self!r}")


@dataclass(slots=True)
class BlkState(VirtioState):
    """Requests under way, in order of completion."""

    writeback: int = 1
    busy_until_ps: int = 0
    under_way: list[Completion] = field(default_factory=list)


class VirtioBlk(VirtioDevice[BlkState]):
    """One disk."""

    TYPE = spec.BLOCK
    TRANSITIONAL_ID = 0x1001
    CLASS_CODE = 0x010000
    MAP = CONFIG
    STATE = BlkState

    def __init__(
        self,
        name: str,
        disk: BlkDisk,
        clock: Clock,
        *,
        serial: str = "",
        num_queues: int = 1,
        queue_size: int = QUEUE_SIZE,
        packed: bool = False,
        **features: bool,
    ) -> None:
        """`serial` is what GET_ID gives; `features` as in `VirtioDevice`."""
        if not 1 <= num_queues <= MOST_QUEUES:
            raise ValueError(f"expected 1 to {MOST_QUEUES} queues, not {num_queues!r}")
        self.disk = disk
        self._clock = clock
        self._serial = serial.encode()[:ID_BYTES].ljust(ID_BYTES, b"\0")
        super().__init__(name, (queue_size,) * num_queues, packed=packed, **features)
        self._timer = clock.timer(f"{name}.done", self._done, work=True)

    # -- configuration ---------------------------------------------------------------------------

    def device_features(self) -> int:
        features = F_SIZE_MAX | F_SEG_MAX | F_GEOMETRY | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY
        features |= F_CONFIG_WCE
        features |= F_RO if self.disk.read_only else F_DISCARD | F_WRITE_ZEROES
        return features | (F_MQ if len(self.queue_sizes) > 1 else 0)

    @on_read(CAPACITY)
    def _capacity(self) -> int:
        return self.disk.sectors

    @on_read(CYLINDERS)
    def _cylinders(self) -> int:
        return min(self.disk.sectors // (16 * 63), 0xFFFF)

    @on_read(NUM_QUEUES)
    def _num_queues(self) -> int:
        return len(self.queue_sizes)

    @on_write(WRITEBACK)
    def _writeback(self, old: int, new: int) -> None:
        self.state.writeback = new & 1 if self.has(F_CONFIG_WCE) else old

    @property
    def _write_through(self) -> bool:
        """Without FLUSH, or with a cache that is off, a write is stable when it is done (5.2.6)."""
        return not self.has(F_FLUSH) or (self.has(F_CONFIG_WCE) and not self.state.writeback)

    # -- requests --------------------------------------------------------------------------------

    def service(self, index: int) -> None:
        """Execute what is available, as long as not too much is under way."""
        queue, state = self.queues[index], self.state
        for _ in range(queue.state.size):
            if sum(done.size_bytes for done in state.under_way) >= MOST_CHAIN_BYTES:
                break
            chain = queue.pop()
            if chain is None:
                break
            self._start(index, chain)

    def _start(self, index: int, chain: Chain) -> None:
        if chain.readable_bytes < 16 or not chain.writable_bytes:
            raise VirtqueueError("a request without header or status")
        if chain.readable_bytes + chain.writable_bytes > MOST_CHAIN_BYTES:
            raise VirtqueueError(f"a request has more than {MOST_CHAIN_BYTES} bytes")
        kind, _, sector = struct.unpack("<IIQ", chain.read(0, 16))
        request = self._begin(index, chain, kind, sector)
        try:
            status, data = self._execute(kind, sector, chain)
        except (DiskError, OSError):
            status, data = S_IOERR, b""
        written = chain.write(data) if data else 0
        chain.write(bytes([status]), chain.writable_bytes - 1)
        state = self.state
        size = chain.readable_bytes + chain.writable_bytes
        state.busy_until_ps = max(state.busy_until_ps, self._clock.now_ps) + size * PS_PER_BYTE
        cost = FLUSH_PS if kind == T_FLUSH else LATENCY_PS
        at = state.busy_until_ps + cost
        if state.under_way:
            at = max(at, state.under_way[-1].at_ps)
        state.under_way.append(
            Completion(index, chain.id, chain.slots, written + 1, size, at, request, status)
        )
        if len(state.under_way) == 1:
            self._timer.arm(at)

    def _begin(self, index: int, chain: Chain, kind: int, sector: int) -> int:
        given, room = chain.readable_bytes - 16, chain.writable_bytes - 1
        name = KINDS.get(kind, f"VIRTIO_BLK_T {kind}")
        write = kind in (T_OUT, T_DISCARD, T_WRITE_ZEROES)
        length = given if write else room
        return self.begin(index, chain, name, address=sector, length=length, write=write)

    def _execute(self, kind: int, sector: int, chain: Chain) -> tuple[int, bytes | memoryview]:
        """(status, data for the guest) of one request."""
        disk = self.disk
        room = chain.writable_bytes - 1
        given = chain.readable_bytes - 16
        match kind:
            case x if x == T_IN:
                if room % SECTOR or sector + room // SECTOR > disk.sectors:
                    return S_IOERR, b""
                return S_OK, disk.read(sector, room // SECTOR) if room else b""
            case x if x == T_OUT:
                if given % SECTOR or sector + given // SECTOR > disk.sectors or disk.read_only:
                    return S_IOERR, b""
                if given:
                    disk.write(sector, chain.read(16))
                if self._write_through:
                    disk.flush()
                return S_OK, b""
            case x if x == T_FLUSH:
                disk.flush()
                return S_OK, b""
            case x if x == T_GET_ID:
                return S_OK, self._serial[:room]
            case x if x in (T_DISCARD, T_WRITE_ZEROES) and not disk.read_only:
                return self._ranges(kind, chain.read(16, 16 * MOST_RANGES), given), b""
            case x if x in (T_DISCARD, T_WRITE_ZEROES):
                return S_IOERR, b""
            case _:
                return S_UNSUPP, b""

    def _ranges(self, kind: int, data: bytes, given: int) -> int:
        """DISCARD and WRITE_ZEROES (5.2.6.1); all ranges are checked before any is done."""
        if not given or given % 16 or given > 16 * MOST_RANGES:
            return S_IOERR
        ranges = list(struct.iter_unpack("<QII", data))
        for sector, count, flags in ranges:
            if flags & ~RANGE_F_UNMAP or (kind == T_DISCARD and flags):
                return S_UNSUPP
            if count > MOST_RANGE_SECTORS or sector + count > self.disk.sectors:
                return S_IOERR
        for sector, count, _ in ranges:
            if not count:
                continue
            if kind == T_DISCARD:
                self.disk.discard(sector, count)
            else:
                self.disk.write_zeroes(sector, count)
        if kind == T_WRITE_ZEROES and self._write_through:
            self.disk.flush()
        return S_OK

    # -- completion ------------------------------------------------------------------------------

    def _done(self) -> None:
        """The timer: return what is done, tell the driver, take what had to wait."""
        state = self.state
        if not self.running:
            return
        touched: dict[int, list[Completion]] = {}
        now = max(self._clock.now_ps, self._timer.fired_ps)
        while state.under_way and state.under_way[0].at_ps <= now:
            done = state.under_way.pop(0)
            if done.queue < len(self.queues) and self.queues[done.queue].ready:
                touched.setdefault(done.queue, []).append(done)
            else:
                self.requests.end(done.request, RESET)
        if state.under_way:
            self._timer.arm(state.under_way[0].at_ps)
        for index, batch in touched.items():
            self.guard(index, partial(self._return, batch))
        for index in touched:
            self.kick(index)

    def _return(self, batch: list[Completion], index: int) -> None:
        for done in batch:
            self.queues[index].push(done.id, done.slots, done.written_bytes)
            status = STATUSES.get(done.status, f"status {done.status}")
            self.requests.end(done.request, status, f"written {done.written_bytes}")
        self.interrupt(index)

    def kick_all(self) -> None:
        """After bus mastering was off, completions wait as well."""
        super().kick_all()
        if self.state.under_way and self._timer.deadline_ps is None:
            self._timer.arm(self.state.under_way[0].at_ps)

    def stopped(self) -> None:
        self.state.under_way.clear()
        self._timer.cancel()

    def queue_stopped(self, index: int) -> None:
        state = self.state
        for done in state.under_way:
            if done.queue == index:
                self.requests.end(done.request, RESET)
        state.under_way = [done for done in state.under_way if done.queue != index]
