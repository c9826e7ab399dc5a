"""An ATAPI CD-ROM drive: PACKET (ATA/ATAPI-7 volume 2, 11.8), commands of MMC-3 and SPC-2.

One data track of mode 1, which READ CD gives raw as well. Sense is kept for REQUEST SENSE; a change
of the disc raises a unit attention. From the host side, `receive("eject", b"")` presses the button
and `receive("insert", b"0")` closes the tray with one of `discs`; both come through the inputs.
Deliberately not modelled: audio, writing, DVD structures, overlapped commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from workbench.hw.ata.ata import transfer_mode_exists
from workbench.hw.ata.drive import (
    BYTE_PS,
    COMMAND_PS,
    SECTOR_BYTES,
    BlockDevice,
    Described,
    Drive,
    Phase,
)
from workbench.hw.ata.identify import packet_words, to_bytes
from workbench.hw.ata.mmc import (
    INVALID_FIELD,
    SenseError,
    configuration,
    disc_information,
    inquiry,
    mode_pages,
    msf_block,
    read_cd_parts,
    sense_data,
    sub_channel,
    toc,
    u16,
    u32,
)
from workbench.hw.ata.packets import SENSE_KEYS, describe_packet
from workbench.hw.ata.rawsector import USER_DATA, cut, frame_bytes
from workbench.hw.ata.registers import ABRT, DRDY, DSC

__all__ = ["CD_BYTES", "AtapiDrive"]

CD_BYTES: Final = 2048
PACKET_BYTES: Final = 12
SEEK_PS: Final = 500_000_000
RAW_BLOCKS: Final = 64  # made at once
MOST_BYTE_COUNT: Final = 0xFFFE
MOST_DMA: Final = 32 << 20  # a longer READ 12 is a table that is too short

COD, IO = 1, 2  # Interrupt Reason: command or data, to the host

# key << 16 | ASC << 8 | ASCQ
NO_SENSE: Final = 0
NO_MEDIUM: Final = 0x023A00
INVALID_COMMAND: Final = 0x052000
OUT_OF_RANGE: Final = 0x052100
REMOVAL_PREVENTED: Final = 0x055302
UNRECOVERED_READ: Final = 0x031100
MEDIUM_CHANGED: Final = 0x062800

EVENT_EJECT_REQUEST, EVENT_NEW_MEDIA, EVENT_MEDIA_REMOVAL = 1, 2, 3


class AtapiDrive(Drive):
    """A CD-ROM drive: `disc` is in it at power-on, `discs` are what else can be put into it."""

    SIGNATURE = 0xEB14
    IDLE_STATUS = DRDY | DSC
    RESET_STATUS = 0

    def __init__(
        self,
        name: str,
        disc: BlockDevice | None = None,
        *,
        discs: Sequence[BlockDevice] = (),
        serial: str = "",
        model: str = "WORKBENCH CD-ROM",
        firmware: str = "1.0",
    ) -> None:
        # Wires
        self.discs: tuple[BlockDevice | None, ...] = (disc, *discs)  # by the number of "insert"
        self.serial = serial or f"WB{name}"
        self.model = model
        self.firmware = firmware
        # Book-keeping
        self._commands = self._table()
        super().__init__(name)

    def _table(self) -> dict[int, Callable[[bytes], None]]:
        return {
            0x00: self._test_unit_ready,
            0x03: self._request_sense,
            0x12: self._inquiry,
            0x1A: self._mode_sense6,
            0x1B: self._start_stop,
            0x1E: self._prevent_allow,
            0x25: self._read_capacity,
            0x28: self._read10,
            0x2B: self._seek,
            0x42: self._read_subchannel,
            0x43: self._read_toc,
            0x46: self._get_configuration,
            0x4A: self._get_event,
            0x51: self._read_disc_information,
            0x5A: self._mode_sense10,
            0xA8: self._read12,
            0xB9: self._read_cd_msf,
            0xBB: self._ready,  # SET CD SPEED
            0xBD: self._mechanism_status,
            0xBE: self._read_cd,
        }

    def settings_to_default(self) -> None:
        """A reset forgets the sense and unlocks the tray."""
        super().settings_to_default()
        self.state.sense = NO_SENSE
        self.state.locked = 0

    # -- media -----------------------------------------------------------------------------------

    @property
    def disc(self) -> BlockDevice | None:
        """What is in the drive."""
        state = self.state
        if state.tray_open or state.disc >= len(self.discs):
            return None
        return self.discs[state.disc]

    @property
    def blocks(self) -> int:
        """Number of blocks of 2,048 bytes."""
        disc = self.disc
        return 0 if disc is None else disc.sectors * 512 // CD_BYTES

    def receive(self, kind: str, data: bytes) -> None:
        """Host input: `eject`, or `insert` with the number of a disc in decimal."""
        state = self.state
        if kind == "eject":
            if state.locked:
                state.event = EVENT_EJECT_REQUEST
            else:
                self._open()
        elif kind == "insert" and (state.tray_open or not state.locked):
            state.disc = min(int(data) if data.isdigit() and len(data) < 4 else 0, 255)
            self._close()

    def _open(self) -> None:
        self.state.tray_open = 1
        self.state.event = EVENT_MEDIA_REMOVAL

    def _close(self) -> None:
        self.state.tray_open = 0
        if self.disc is not None:
            self.state.attention = MEDIUM_CHANGED
            self.state.event = EVENT_NEW_MEDIA

    # -- ATA commands ----------------------------------------------------------------------------

    def execute(self, code: int) -> None:
        """Execute an ATA command."""
        state = self.state
        match code:
            case 0x08:  # DEVICE RESET
                self._signature(state)
                state.packet_dma = 0
                self._end_request()
            case 0xA0:
                self._packet()
            case 0xA1:
                words = packet_words(state, self.serial, self.firmware, self.model)
                state.buffer = bytearray(to_bytes(words))
                self._busy(Phase.READ, COMMAND_PS)
            case 0xEC | 0x20 | 0x21:  # IDENTIFY DEVICE, READ SECTOR(S): show what this is (9.12)
                state.count = state.lbal = 1
                state.lbam, state.lbah = self.SIGNATURE & 0xFF, self.SIGNATURE >> 8
                self._fail()
            case 0xE0 | 0xE1 | 0xE2 | 0xE3:
                state.power = 0xFF if code & 1 else 0
                self._busy(Phase.FINISH, COMMAND_PS)
            case 0xE5:
                state.count = state.power
                self._busy(Phase.FINISH, COMMAND_PS)
            case 0xE6:
                state.power = 1
                self._busy(Phase.FINISH, COMMAND_PS)
            case 0xEF if state.features & 0xFF == 0x03 and transfer_mode_exists(state.count & 0xFF):
                state.transfer_mode = state.count & 0xFF
                self._busy(Phase.FINISH, COMMAND_PS)
            case 0xEF if state.features & 0xFF in (0x66, 0xCC):
                self._busy(Phase.FINISH, COMMAND_PS)
            case _:
                self._fail()

    def _packet(self) -> None:
        """DRQ for the packet, without an interrupt, as word 0 of the identification promises."""
        state = self.state
        if state.features & 2:  # overlapped
            self._fail()
            return
        state.packet_dma = state.features & 1
        limit = state.lbam & 0xFF | (state.lbah & 0xFF) << 8
        state.block = (0xFFFE if limit == 0xFFFF else limit & ~1 if limit > 1 else limit) or 0x10000
        state.count = COD
        state.command = 0xA0
        self._accept(PACKET_BYTES, interrupt=False)

    def block_written(self) -> None:
        """The packet is complete."""
        self._busy(Phase.EXECUTE, COMMAND_PS)

    def block_read(self) -> None:
        """The host has taken a block: the next, or status."""
        state = self.state
        if state.command != 0xA0:
            self._drop()
            self._idle()
        elif state.left:
            self._busy(Phase.READ, COMMAND_PS + min(state.block, state.left) * BYTE_PS)
        else:
            self._busy(Phase.FINISH, COMMAND_PS)

    def proceed(self, phase: Phase) -> None:
        """The packet is to be executed, or a block is there."""
        if phase is Phase.EXECUTE:
            packet = bytes(self.state.buffer[:PACKET_BYTES]).ljust(PACKET_BYTES, b"\0")
            self._drop()
            self._update_request(packet)
            try:
                self._command(packet)
            except SenseError as error:
                self._check(error.sense)
        elif phase is Phase.READ:
            if self.state.command == 0xA0:
                self._offer_part()
            else:
                self._offer(self.state.buffer)

    def _update_request(self, packet: bytes) -> None:
        """Now it is known what the PACKET command is for."""
        state = self.state
        name, block, length_bytes = describe_packet(packet)
        mode = self.transfer_mode_name() if state.packet_dma else "PIO"
        self.requests.update(
            state.request,
            name,
            address=block,
            length=length_bytes,
            detail=f"drive {state.device >> 4 & 1} {mode if length_bytes else ''}".rstrip(),
        )

    def describe(self, code: int) -> Described:
        """Of the other ATA commands; what a PACKET is for comes with the packet."""
        return Described(0, SECTOR_BYTES, False, "PIO") if code == 0xA1 else Described()

    def error_name(self, error: int) -> str:
        """The sense key of a PACKET command that failed."""
        if self.state.command != 0xA0 or not error >> 4:
            return super().error_name(error)
        return SENSE_KEYS.get(error >> 4, f"sense key {error >> 4:X}h")

    def _command(self, packet: bytes) -> None:
        state = self.state
        code = packet[0]
        command = self._commands.get(code)
        if state.attention and code not in (0x03, 0x12, 0x46, 0x4A):
            sense, state.attention = state.attention, 0
            raise SenseError(sense)
        if command is None:
            raise SenseError(INVALID_COMMAND)
        if code != 0x03:
            state.sense = NO_SENSE
        command(packet)

    def _check(self, sense: int) -> None:
        """CHECK CONDITION: the sense key is in the Error register."""
        state = self.state
        state.sense = sense
        state.count = COD | IO
        self._fail(sense >> 16 << 4 | ABRT)

    def _done(self) -> None:
        self.state.count = COD | IO if self.state.command == 0xA0 else self.state.count
        super()._done()

    # -- data to the host ------------------------------------------------------------------------

    def _send(self, data: bytes, allocation: int) -> None:
        """Give at most `allocation` bytes of what the drive has in itself."""
        state = self.state
        state.reply = bytearray(data[:allocation])
        state.from_disc = state.lba = 0
        self._transfer(len(state.reply), COMMAND_PS)

    def _send_blocks(self, block: int, count: int, parts: int = USER_DATA) -> None:
        """Give blocks of the disc, these parts of each."""
        disc_blocks = self._loaded()
        if block + count > disc_blocks:
            raise SenseError(OUT_OF_RANGE)
        state = self.state
        length = frame_bytes(parts)
        state.from_disc = 1 if length == CD_BYTES else parts
        state.lba = block * length
        self._transfer(count * length, SEEK_PS)

    def _transfer(self, length_bytes: int, ps: int) -> None:
        state = self.state
        state.left = length_bytes
        if not length_bytes:
            self._busy(Phase.FINISH, COMMAND_PS)
        elif state.packet_dma:
            self._request_dma(ps + length_bytes * BYTE_PS)
        elif state.block > 0xFFFE:  # a byte count limit of 0
            self._fail()
        else:
            self._busy(Phase.READ, ps + min(state.block, length_bytes) * BYTE_PS)

    def _bytes(self, at: int, length: int) -> bytes:
        """Bytes of the reply or of the disc; zeros where there are none any more."""
        state = self.state
        if not state.from_disc:
            return bytes(state.reply[at : at + length]).ljust(length, b"\0")
        if state.from_disc > 1:
            return self._raw_bytes(at, length, state.from_disc)
        return self._data_bytes(at, length)

    def _raw_bytes(self, at: int, length: int, parts: int) -> bytes:
        """Of sectors with what is around their data."""
        frame = frame_bytes(parts)
        if not frame:
            return bytes(length)
        first, end = at // frame, -(-(at + length) // frame)
        out = bytearray()
        for block in range(first, end, RAW_BLOCKS):
            count = min(RAW_BLOCKS, end - block)
            out += cut(self._data_bytes(block * CD_BYTES, count * CD_BYTES), block, parts)
        skip = at - first * frame
        return bytes(out[skip : skip + length])

    def _data_bytes(self, at: int, length: int) -> bytes:
        disc = self.disc
        first, end = at // SECTOR_BYTES, -(-(at + length) // SECTOR_BYTES)
        inside = 0 if disc is None else max(0, min(end, disc.sectors) - first)
        data = disc.read(first, inside) if disc is not None and inside else b""
        skip = at - first * SECTOR_BYTES
        return bytes(data[skip : skip + length]).ljust(length, b"\0")

    def _offer_part(self) -> None:
        """The next block of PIO: at most the byte count limit."""
        state = self.state
        length = max(min(state.block, state.left, MOST_BYTE_COUNT), 1)
        data = self._bytes(state.lba, length)
        state.lba += length
        state.left = max(state.left - length, 0)
        state.count = IO
        state.lbam, state.lbah = length & 0xFF, length >> 8
        self._offer(data)

    @property
    def dma_bytes(self) -> int:
        """Length of the transfer."""
        return min(self.state.left, MOST_DMA)

    @property
    def dma_to_memory(self) -> bool:
        """Always: nothing is written to a CD-ROM."""
        return True

    def dma_read(self, length_bytes: int) -> bytes:
        """The first bytes of the transfer."""
        return self._bytes(self.state.lba, length_bytes)

    def medium_error(self) -> None:
        """The disc cannot be read."""
        self._check(UNRECOVERED_READ)

    # -- packets without data --------------------------------------------------------------------

    def _loaded(self) -> int:
        """Number of blocks; CHECK CONDITION without a disc."""
        if self.disc is None:
            raise SenseError(NO_MEDIUM)
        return self.blocks

    def _ready(self, packet: bytes) -> None:
        self._busy(Phase.FINISH, COMMAND_PS)

    def _test_unit_ready(self, packet: bytes) -> None:
        self._loaded()
        self._ready(packet)

    def _seek(self, packet: bytes) -> None:
        if u32(packet, 2) >= self._loaded():
            raise SenseError(OUT_OF_RANGE)
        self._busy(Phase.FINISH, SEEK_PS)

    def _start_stop(self, packet: bytes) -> None:
        match packet[4] & 3 if not packet[4] >> 4 else 0:  # else a power condition
            case 2:  # LoEj without Start
                if self.state.locked:
                    raise SenseError(REMOVAL_PREVENTED)
                if not self.state.tray_open:
                    self._open()
            case 3:
                if self.state.tray_open:
                    self._close()
        self._ready(packet)

    def _prevent_allow(self, packet: bytes) -> None:
        self.state.locked = packet[4] & 1
        self._ready(packet)

    # -- packets with data -----------------------------------------------------------------------

    def _request_sense(self, packet: bytes) -> None:
        state = self.state
        sense = state.sense or state.attention
        if sense == state.attention:
            state.attention = 0
        state.sense = NO_SENSE
        self._send(sense_data(sense), packet[4])

    def _inquiry(self, packet: bytes) -> None:
        reply = inquiry(packet, self.model, self.firmware, self.serial)
        self._send(reply, packet[4])

    def _read_capacity(self, packet: bytes) -> None:
        last = max(self._loaded() - 1, 0)
        self._send(last.to_bytes(4, "big") + CD_BYTES.to_bytes(4, "big"), 8)

    def _read10(self, packet: bytes) -> None:
        self._send_blocks(u32(packet, 2), u16(packet, 7))

    def _read12(self, packet: bytes) -> None:
        self._send_blocks(u32(packet, 2), u32(packet, 6))

    def _read_cd(self, packet: bytes) -> None:
        self._loaded()
        self._read_parts(packet, u32(packet, 2), int.from_bytes(packet[6:9], "big"))

    def _read_cd_msf(self, packet: bytes) -> None:
        self._loaded()
        first, end = msf_block(packet[3:6]), msf_block(packet[6:9])
        if first > end:
            raise SenseError(INVALID_FIELD)
        self._read_parts(packet, first, end - first)

    def _read_parts(self, packet: bytes, block: int, count: int) -> None:
        parts = read_cd_parts(packet)
        if frame_bytes(parts) and count:
            self._send_blocks(block, count, parts)
        else:
            self._ready(packet)

    def _read_toc(self, packet: bytes) -> None:
        self._send(toc(packet, self._loaded()), u16(packet, 7))

    def _read_subchannel(self, packet: bytes) -> None:
        self._loaded()
        self._send(sub_channel(packet), u16(packet, 7))

    def _read_disc_information(self, packet: bytes) -> None:
        self._loaded()
        self._send(disc_information(packet), u16(packet, 7))

    def _get_configuration(self, packet: bytes) -> None:
        self._send(configuration(packet, self.disc is not None), u16(packet, 7))

    def _get_event(self, packet: bytes) -> None:
        """GET EVENT STATUS NOTIFICATION, polled; class 4 is media."""
        state = self.state
        if not packet[1] & 1:
            raise SenseError(INVALID_FIELD)
        if packet[4] & 0x10:
            status = state.tray_open | (2 if self.disc is not None else 0)
            data = bytes((0, 4, 4, 0x10, state.event, status, 0, 0))
            if u16(packet, 7) > 4:
                state.event = 0
        else:
            data = bytes((0, 2, 0x80, 0x10))
        self._send(data, u16(packet, 7))

    def _mechanism_status(self, packet: bytes) -> None:
        self._send(bytes((0, self.state.tray_open << 4, 0, 0, 0, 1, 0, 0)), u16(packet, 8))

    def _mode_sense10(self, packet: bytes) -> None:
        pages = mode_pages(packet, bool(self.state.locked))
        head = (len(pages) + 6).to_bytes(2, "big") + bytes((self._medium_type, 0, 0, 0, 0, 0))
        self._send(head + pages, u16(packet, 7))

    def _mode_sense6(self, packet: bytes) -> None:
        pages = mode_pages(packet, bool(self.state.locked))
        self._send(bytes((len(pages) + 3, self._medium_type, 0, 0)) + pages, packet[4])

    @property
    def _medium_type(self) -> int:
        """A data disc of 120 mm, no disc, or the tray is open (SFF-8020i 10.8.6)."""
        return 0x01 if self.disc is not None else 0x71 if self.state.tray_open else 0x70
