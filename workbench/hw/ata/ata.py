"""An ATA-7 disk (ATA/ATAPI-7 volume 1), with TRIM of ATA8-ACS.

The commands are those of the General feature set with 48-bit addresses, Power Management, SMART and
DATA SET MANAGEMENT. Without Security, Host Protected Area, Removable Media, queued and streaming
commands: those are aborted, as for any command that a drive does not have (6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workbench.hw.ata.drive import (
    ACCESS_PS,
    BLOCK_PS,
    BYTE_PS,
    COMMAND_PS,
    FLUSH_PS,
    SECTOR_BYTES,
    BlockDevice,
    Described,
    Drive,
    DriveState,
    Phase,
)
from workbench.hw.ata.identify import (
    MOST_LBA28,
    MOST_MULTIPLE,
    MOST_MWDMA,
    MOST_UDMA,
    TRIM_BLOCKS,
    disk_words,
    geometry,
    to_bytes,
)
from workbench.hw.ata.registers import ABRT, IDNF, LBA, UNC

__all__ = ["AtaDisk"]

SMART_KEY: Final = 0xC24F  # LBA High and LBA Mid of every SMART command
DSM_TRIM: Final = 0x01
READS: Final = frozenset({0x20, 0x21, 0x24, 0x29, 0xC4})
FUA: Final = frozenset({0x3D, 0xCE})
EXTENDED: Final = frozenset({0x24, 0x25, 0x29, 0x34, 0x35, 0x39, 0x3D, 0x42, 0xCE})
DMA_READS: Final = frozenset({0x25, 0xC8, 0xC9})
DMA_WRITES: Final = frozenset({0x35, 0x3D, 0xCA, 0xCB})
DSM: Final = 0x06
PIO_WRITES: Final = frozenset({0x30, 0x31, 0x34, 0x39, 0xC5, 0xCE})
VERIFIES: Final = frozenset({0x40, 0x41, 0x42, 0x70})
WRITE_BUFFER: Final = 0xE8
ONE_SECTOR: Final = frozenset({0xE4, WRITE_BUFFER, 0xEC})
SMART: Final = 0xB0
SMART_READS: Final = frozenset({0xD0, 0xD1, 0xD5})


class AtaDisk(Drive):
    """A disk with `disk` behind it."""

    def __init__(
        self,
        name: str,
        disk: BlockDevice,
        *,
        serial: str = "",
        model: str = "WORKBENCH DISK",
        firmware: str = "1.0",
    ) -> None:
        # Wires
        self.disk = disk
        self.serial = serial or f"WB{name}"
        self.model = model
        self.firmware = firmware
        # Book-keeping
        self._commands = self._table()
        super().__init__(name)

    def _table(self) -> dict[int, Callable[[], None]]:
        table: dict[int, Callable[[], None]] = {
            0x06: self._data_set_management,
            0x27: lambda: self._native_max(extended=True),
            0x70: lambda: self._verify(extended=False, whole=False),
            0x91: self._initialize_parameters,
            0xB0: self._smart,
            0xC6: self._set_multiple,
            0xE4: lambda: self._give(bytes(SECTOR_BYTES)),
            0xE5: self._check_power,
            0xE6: lambda: self._set_power(1),
            0xE8: lambda: self._accept(SECTOR_BYTES, interrupt=False),
            0xEC: self._identify,
            0xEF: self._set_features,
            0xF8: lambda: self._native_max(extended=False),
        }
        for code in range(0x10, 0x20):
            table[code] = self._nothing  # RECALIBRATE
        for code in (0x20, 0x21, 0x24, 0x30, 0x31, 0x34):
            table[code] = self._pio
        for code in (0x29, 0x39, 0xC4, 0xC5, 0xCE):
            table[code] = self._pio_multiple
        for code in DMA_READS | DMA_WRITES:
            table[code] = self._dma
        for code in (0x40, 0x41):
            table[code] = lambda: self._verify(extended=False)
        table[0x42] = lambda: self._verify(extended=True)
        for code in (0xE7, 0xEA):
            table[code] = lambda: self._busy(Phase.FLUSH, FLUSH_PS)
        for code in (0xE0, 0xE2):
            table[code] = lambda: self._set_power(0)
        for code in (0xE1, 0xE3):
            table[code] = lambda: self._set_power(0xFF)
        return table

    def power_on(self, state: DriveState) -> None:
        """Default geometry, and the signature."""
        _, state.heads, state.sectors_per_track = geometry(self.disk.sectors)
        super().power_on(state)

    def execute(self, code: int) -> None:
        """Execute a command; one that the drive does not have is aborted."""
        command = self._commands.get(code)
        if command is None:
            self._fail()
        else:
            command()

    # -- addresses -------------------------------------------------------------------------------

    def _range(self, extended: bool) -> bool:
        """Take address and count from the task file; False, and the command failed, if they are
        outside the disk.
        """
        state = self.state
        lba, count, valid = self._place(extended)
        if not valid or lba + count > self.disk.sectors:
            self._bad_address(max(lba, min(self.disk.sectors, lba + count)), extended)
            return False
        state.lba, state.left = lba, count
        state.power = 0xFF  # access to the medium ends standby
        return True

    def _place(self, extended: bool) -> tuple[int, int, bool]:
        """Address and count in the task file, and whether there is such an address."""
        state = self.state
        if extended:
            return self._lba_registers(), state.count or 0x10000, bool(state.device & LBA)
        lba, valid = self._lba28()
        return lba, state.count & 0xFF or 0x100, valid

    def describe(self, code: int) -> Described:
        """Address and length as the task file has them, whether or not they can be done."""
        state = self.state
        dma = code in DMA_READS or code in DMA_WRITES
        if dma or code in READS or code in PIO_WRITES or code in VERIFIES:
            lba, count, _ = self._place(code in EXTENDED)
            if code == 0x70:
                count = 0
            moved = 0 if code in VERIFIES else count * SECTOR_BYTES
            mode = self.transfer_mode_name() if dma else "PIO" if moved else ""
            return Described(lba, moved, code in DMA_WRITES or code in PIO_WRITES, mode)
        if code == DSM:
            length = (state.count & 0xFFFF) * SECTOR_BYTES
            return Described(0, length, True, self.transfer_mode_name())
        if code in ONE_SECTOR or (code == SMART and state.features & 0xFF in SMART_READS):
            return Described(0, SECTOR_BYTES, code == WRITE_BUFFER, "PIO")
        return Described()

    def _lba28(self) -> tuple[int, bool]:
        state = self.state
        low, mid, high = state.lbal & 0xFF, state.lbam & 0xFF, state.lbah & 0xFF
        if state.device & LBA:
            return low | mid << 8 | high << 16 | (state.device & 0xF) << 24, True
        cylinder, head = mid | high << 8, state.device & 0xF
        valid = 1 <= low <= state.sectors_per_track and head < state.heads
        lba = (cylinder * state.heads + head) * state.sectors_per_track + low - 1
        return max(lba, 0), valid

    def _lba_registers(self) -> int:
        state = self.state
        return (
            (state.lbal & 0xFF | (state.lbam & 0xFF) << 8 | (state.lbah & 0xFF) << 16)
            | (state.lbal >> 8) << 24 | (state.lbam >> 8) << 32 | (state.lbah >> 8) << 40
        )  # fmt: skip

    def _show_lba(self, lba: int, extended: bool) -> None:
        """An address in the task file, for the host to read."""
        state = self.state
        state.lbal = lba & 0xFF | (lba >> 24 & 0xFF) << 8
        state.lbam = lba >> 8 & 0xFF | (lba >> 32 & 0xFF) << 8
        state.lbah = lba >> 16 & 0xFF | (lba >> 40 & 0xFF) << 8
        if not extended:
            state.device = state.device & 0xF0 | lba >> 24 & 0xF

    def _bad_address(self, lba: int, extended: bool) -> None:
        if self.state.device & LBA:
            self._show_lba(lba, extended)
        self._fail(IDNF)

    @property
    def _extended(self) -> bool:
        return self.state.command in EXTENDED

    # -- reading and writing ---------------------------------------------------------------------

    def _pio(self) -> None:
        self._start(1)

    def _pio_multiple(self) -> None:
        if self.state.multiple:
            self._start(self.state.multiple)
        else:
            self._fail()

    def _start(self, block: int) -> None:
        state = self.state
        reading = state.command in READS
        if not reading and self.disk.read_only:
            self._fail()
        elif self._range(self._extended):
            state.block = block
            if reading:
                length = min(block, state.left) * SECTOR_BYTES
                self._busy(Phase.READ, ACCESS_PS + length * BYTE_PS)
            else:
                self._next_out(interrupt=False)

    def _next_out(self, *, interrupt: bool) -> None:
        state = self.state
        self._accept(min(state.block, state.left) * SECTOR_BYTES, interrupt=interrupt)

    def _give(self, data: bytes) -> None:
        """A PIO data-in command whose data the drive has itself."""
        self.state.buffer = bytearray(data)
        self._busy(Phase.READ, COMMAND_PS)

    def block_read(self) -> None:
        """The host has taken a block: the next, or the end."""
        state = self.state
        if state.left:
            length = min(state.block, state.left) * SECTOR_BYTES
            self._busy(Phase.READ, BLOCK_PS + length * BYTE_PS)
        else:
            self._drop()
            self._idle()

    def block_written(self) -> None:
        """The host has given a block: to the disk."""
        state = self.state
        if state.command == 0xE8:
            self._busy(Phase.FINISH, COMMAND_PS)
        else:
            self._busy(Phase.WRITE, BLOCK_PS + len(state.buffer) * BYTE_PS)

    def proceed(self, phase: Phase) -> None:
        """A block is there, is on the disk, or the cache is empty."""
        state = self.state
        if phase is Phase.READ:
            if state.left:
                count = min(state.block, state.left, MOST_MULTIPLE)
                state.buffer = bytearray(self._read(state.lba, count))
                state.lba += count
                state.left -= count
            self._offer(state.buffer)
        elif phase is Phase.WRITE:
            count = len(state.buffer) // SECTOR_BYTES
            self._write(state.lba, bytes(state.buffer[: count * SECTOR_BYTES]))
            state.lba += count
            state.left = max(state.left - max(count, 1), 0)
            if state.left:
                self._next_out(interrupt=True)
            else:
                self._commit()
        elif phase is Phase.FLUSH:
            self.disk.flush()
            self._done()

    def _commit(self) -> None:
        """The end of a write: with the cache off, or by FUA, the data are on the medium."""
        if not self.state.write_cache or self.state.command in FUA:
            self._busy(Phase.FLUSH, COMMAND_PS)
        else:
            self._done()

    def _read(self, lba: int, count: int) -> bytes | memoryview:
        """Sectors; zeros beyond the end, which only a snapshot that lies can ask for."""
        inside = max(0, min(count, self.disk.sectors - lba))
        data = self.disk.read(lba, inside) if inside else b""
        return data if inside == count else bytes(data) + bytes((count - inside) * SECTOR_BYTES)

    def _write(self, lba: int, data: bytes) -> None:
        inside = max(0, min(len(data) // SECTOR_BYTES, self.disk.sectors - lba))
        if inside and not self.disk.read_only:
            self.disk.write(lba, data[: inside * SECTOR_BYTES])

    def medium_error(self) -> None:
        """A sector cannot be read (UNC) or written."""
        if self.state.command in READS | DMA_READS:
            self._show_lba(self.state.lba, self._extended)
            self._fail(UNC)
        else:
            self._fail(ABRT)

    def _verify(self, *, extended: bool, whole: bool = True) -> None:
        if not whole:
            self.state.count = self.state.count & 0xFF00 | 1  # SEEK goes to one sector
        if self._range(extended):
            self._busy(Phase.FINISH, ACCESS_PS)

    # -- DMA -------------------------------------------------------------------------------------

    def _dma(self) -> None:
        state = self.state
        if state.command in DMA_WRITES and self.disk.read_only:
            self._fail()
        elif self._range(self._extended):
            self._request_dma(ACCESS_PS + state.left * SECTOR_BYTES * BYTE_PS)

    @property
    def dma_bytes(self) -> int:
        """Length of the transfer."""
        return min(self.state.left, 0x10000) * SECTOR_BYTES

    @property
    def dma_to_memory(self) -> bool:
        """Its direction."""
        return self.state.command in DMA_READS

    def dma_read(self, length_bytes: int) -> bytes | memoryview:
        """The first bytes of what was asked for."""
        count = -(-length_bytes // SECTOR_BYTES)
        return self._read(self.state.lba, count)[:length_bytes]

    def dma_write(self, data: bytes) -> None:
        """Whole sectors of the data reach the disk; ranges to trim only if all are there."""
        state = self.state
        if state.command != DSM:
            whole = len(data) // SECTOR_BYTES * SECTOR_BYTES
            self._write(state.lba, data[:whole])
        elif len(data) == self.dma_bytes:
            self._trim(data)

    def dma_done(self) -> None:
        """Everything has been moved."""
        if self.state.phase is Phase.DMA_WAIT:
            if self.state.command in DMA_WRITES:
                self._commit()
            else:
                self._done()

    def _data_set_management(self) -> None:
        """Bits 15:8 of the count are not looked at: a host that minds word 105 leaves them 0, and
        there are some that write the register only once.
        """
        state = self.state
        count = state.count & 0xFF
        known = state.features & 0xFF == DSM_TRIM and 1 <= count <= TRIM_BLOCKS
        if not known or self.disk.read_only:
            self._fail()
        else:
            state.left = count
            self._request_dma(ACCESS_PS)

    def _trim(self, data: bytes) -> None:
        entries = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
        ranges = [(e & (1 << 48) - 1, e >> 48) for e in entries if e >> 48]
        if any(lba + count > self.disk.sectors for lba, count in ranges):
            self._fail()
            return
        for lba, count in ranges:
            self.disk.discard(lba, count)

    # -- the rest --------------------------------------------------------------------------------

    def _nothing(self) -> None:
        self._busy(Phase.FINISH, COMMAND_PS)

    def _identify(self) -> None:
        words = disk_words(
            self.state,
            self.disk.sectors,
            self.serial,
            self.firmware,
            self.model,
            second=bool(self.state.device & 0x10),
        )
        self._give(to_bytes(words))

    def _initialize_parameters(self) -> None:
        state = self.state
        if not state.count & 0xFF:
            self._fail()
            return
        state.heads = (state.device & 0xF) + 1
        state.sectors_per_track = state.count & 0xFF
        self._nothing()

    def _set_multiple(self) -> None:
        count = self.state.count & 0xFF
        if count > MOST_MULTIPLE or count & count - 1:
            self.state.multiple = 0
            self._fail()
            return
        self.state.multiple = count
        self._nothing()

    def _set_features(self) -> None:
        state = self.state
        match state.features & 0xFF:
            case 0x02:
                state.write_cache = 1
            case 0x82:
                state.write_cache = 0
                self._busy(Phase.FLUSH, FLUSH_PS)
                return
            case 0xAA:
                state.look_ahead = 1
            case 0x55:
                state.look_ahead = 0
            case 0x03 if transfer_mode_exists(state.count & 0xFF):
                state.transfer_mode = state.count & 0xFF
            case 0x66 | 0xCC:  # keep or forget settings over a software reset: they are kept
                pass
            case _:
                self._fail()
                return
        self._nothing()

    def _native_max(self, *, extended: bool) -> None:
        most = self.disk.sectors - 1
        self._show_lba(most if extended else min(most, MOST_LBA28 - 1), extended)
        self._nothing()

    def _check_power(self) -> None:
        self.state.count = self.state.power
        self._nothing()

    def _set_power(self, mode: int) -> None:
        self.state.power = mode
        self._busy(Phase.FLUSH if mode != 0xFF else Phase.FINISH, COMMAND_PS)

    # -- SMART -----------------------------------------------------------------------------------

    def _smart(self) -> None:
        state = self.state
        key = (state.lbah & 0xFF) << 8 | state.lbam & 0xFF
        what = state.features & 0xFF
        if key != SMART_KEY or not (state.smart or what == 0xD8):
            self._fail()
            return
        match what:
            case 0xD0:
                self._give(_smart_values())
            case 0xD1:
                self._give(_smart_thresholds())
            case 0xD2 | 0xDA:  # attribute autosave, return status: good
                self._nothing()
            case 0xD4 if state.lbal & 0xFF in (
                0x00,
                0x7F,
            ):  # off-line routine, its end; no self-test
                self._nothing()
            case 0xD5 if state.lbal & 0xFF in (0x00, 0x01, 0x06) and state.count & 0xFF:
                self._give(_smart_log(state.lbal & 0xFF))
            case 0xD8:
                state.smart = 1
                self._nothing()
            case 0xD9:
                state.smart = 0
                self._nothing()
            case _:
                self._fail()


def transfer_mode_exists(mode: int) -> bool:
    """SET FEATURES subcommand 03h: whether the drive can do this mode."""
    kind, number = mode >> 3, mode & 7
    most = {0: 1, 1: 4, 4: MOST_MWDMA, 8: MOST_UDMA}.get(kind)
    return most is not None and number <= most


# Attribute, flags, value, worst, raw, threshold: one that never fails, for tools to print.
_ATTRIBUTES: Final = (
    (1, 0x0003, 100, 100, 0, 6),  # raw read error rate
    (3, 0x0003, 100, 100, 16, 0),  # spin-up time
    (5, 0x0003, 100, 100, 0, 36),  # reallocated sectors
    (9, 0x0003, 100, 100, 1, 0),  # power-on hours
    (12, 0x0003, 100, 100, 0, 0),  # power cycles
    (190, 0x0003, 69, 69, 31, 50),  # temperature
)


def _checked(raw: bytearray) -> bytes:
    raw[511] = -sum(raw[:511]) & 0xFF
    return bytes(raw)


def _smart_values() -> bytes:
    raw = bytearray(SECTOR_BYTES)
    raw[0:2] = (0x0010).to_bytes(2, "little")
    for n, (number, flags, value, worst, measured, _) in enumerate(_ATTRIBUTES):
        at = 2 + 12 * n
        raw[at] = number
        raw[at + 1 : at + 3] = flags.to_bytes(2, "little")
        raw[at + 3], raw[at + 4] = value, worst
        raw[at + 5 : at + 11] = measured.to_bytes(6, "little")
    raw[362] = 0x02  # off-line collection completed without error
    raw[367] = 0x01  # EXECUTE OFF-LINE IMMEDIATE
    raw[368:370] = (0x0003).to_bytes(2, "little")
    raw[370] = 0x01  # error logging
    return _checked(raw)


def _smart_thresholds() -> bytes:
    raw = bytearray(SECTOR_BYTES)
    raw[0:2] = (0x0010).to_bytes(2, "little")
    for n, (number, _, _, _, _, threshold) in enumerate(_ATTRIBUTES):
        raw[2 + 12 * n], raw[3 + 12 * n] = number, threshold
    return _checked(raw)


def _smart_log(address: int) -> bytes:
    """Directory, summary error log or self-test log, all without entries."""
    raw = bytearray(SECTOR_BYTES)
    raw[0] = 1
    if address == 0:
        raw[2], raw[12] = 1, 1  # one sector each for logs 1 and 6
        return bytes(raw)
    return _checked(raw)
